"""Self Forcing for ComfyUI: streaming autoregressive video."""

try:
    import comfy_api  # noqa: F401 - the folder is also a Python project, whose tests run without ComfyUI
except ImportError:
    pass
else:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./js"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
