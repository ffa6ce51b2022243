"""HTTP routes: steering of live runs, and the session files."""
