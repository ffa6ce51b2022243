"""A real ComfyUI, its editor and a browser, for `make run`, `make comfyui` and the tests."""
