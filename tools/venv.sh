#!/bin/sh
# Make .venv with what the command line needs. With arguments also with more:
#   comfyui   what a real ComfyUI needs     browser   Playwright and a Chromium for it
#   train     what training needs
#   test      what the tests need, the first two included; and node
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stages=" $* "
[ "$stages" != " test " ] || stages=" comfyui browser test "
pip=".venv/bin/python -m pip install --quiet --disable-pip-version-check"
torch=$(sed -n 's/^torch==//p' constraints.txt)

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 is needed and $python is older: call make PYTHON=/path/to/python3.11" >&2
    exit 1
}
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        # Debian keeps the venv module in a package of its own
        echo "installing python3-venv, which $python lacks"
        sudo=$([ "$(id -u)" = 0 ] || echo sudo)
        $sudo apt-get update -qq && $sudo apt-get install -y -qq python3-venv
        rm -rf .venv
        "$python" -m venv .venv
    fi
fi
if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    # The CPU build has no gigabytes of CUDA libraries with it. Where the package index has none, take what it has.
    if $pip "torch==$torch+cpu" >/dev/null 2>&1; then
        echo "installed torch $torch, CPU build"
    else
        echo "no CPU build of torch $torch at your package index: downloading the ordinary one"
        echo "(on Linux with an Intel or AMD processor that is about 3 GB, most of it CUDA libraries;"
        echo "to avoid it, point PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds and call make again)"
        $pip --constraint constraints.txt torch
    fi
fi
$pip --constraint constraints.txt --requirement requirements.txt
case $stages in *" comfyui "*)
    $pip --constraint constraints.txt --requirement requirements-comfyui.txt
    # ComfyUI does not start without torchvision and torchaudio. Both, and spandrel, ask for a torch of their own choice,
    # which is 5 GB of CUDA libraries; and beside a CPU build of torch they may not import, which breaks transformers too.
    # So they come alone and lie where only tools/comfyui/launch.py looks.
    rm -rf .venv/comfyui
    $pip --constraint constraints.txt --no-deps --target .venv/comfyui spandrel torchaudio torchvision
    ;;
esac
case $stages in *" browser "*)
    $pip --constraint constraints.txt playwright
    # CHROMIUM, or any Chromium or Chrome, serves. Without one the rest still works, and says so.
    have=${CHROMIUM:-}
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
        have=$have$(command -v $name || true)
    done
    if [ -z "$have" ]; then
        echo "installing chromium"
        sudo=$([ "$(id -u)" = 0 ] || echo "sudo -n")
        { $sudo apt-get update -qq && $sudo apt-get install -y -qq chromium >/dev/null; } ||
            .venv/bin/python -m playwright install chromium ||
            echo "NO CHROMIUM could be installed: there will be no picture of the canvas and no browser tests" >&2
    fi
    ;;
esac
case $stages in *" train "*) $pip --constraint constraints.txt matplotlib pydantic tensorboard ;; esac
case $stages in *" test "*)
    $pip --constraint constraints.txt --requirement requirements-test.txt
    if ! command -v node >/dev/null && ! command -v nodejs >/dev/null; then
        echo "installing nodejs, for the tests of the editor's extension"
        sudo=$([ "$(id -u)" = 0 ] || echo "sudo -n")
        { $sudo apt-get update -qq && $sudo apt-get install -y -qq nodejs >/dev/null; } ||
            echo "NO NODE could be installed: there will be no tests of the JavaScript modules" >&2
    fi
    ;;
esac
