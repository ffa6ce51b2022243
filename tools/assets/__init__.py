"""Scripts that make committed files: pictures, and the English texts of the nodes. No part of the pack."""
