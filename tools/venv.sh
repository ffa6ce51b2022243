#!/bin/sh
# Make .venv with what the command line needs. Arguments install more:
#   train     the packages for training
#   check     the packages for lint and unit tests, and node
#   comfyui   the packages that a real ComfyUI needs
#   browser   a Chromium for Playwright
#   test      everything that make test needs: check, comfyui and browser
# Package names are in pyproject.toml and requirements.txt, versions in constraints.txt.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stages=" $* "
[ "$stages" != " test " ] || stages=" check comfyui browser "
pip=".venv/bin/python -m pip install --quiet --disable-pip-version-check"
torch=$(sed -n 's/^torch==//p' constraints.txt)

# Install extras and groups of pyproject.toml.
need() {
    wanted=$(mktemp)
    .venv/bin/python tools/requirements.py "$@" >"$wanted"
    $pip --constraint constraints.txt --requirement "$wanted"
    rm "$wanted"
}

# Install a Debian package, as root or with the sudo command given first.
debian() {
    sudo=$([ "$(id -u)" = 0 ] || echo "$1")
    $sudo apt-get update -qq && $sudo apt-get install -y -qq "$2" >/dev/null
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed and $python is older: call make PYTHON=/path/to/python3.11" >&2
    exit 1
}
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        echo "installing python3-venv, which $python lacks: Debian has it in a package of its own"
        debian sudo python3-venv
        rm -rf .venv
        "$python" -m venv .venv
    fi
fi
if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    # The CPU build comes without gigabytes of CUDA libraries. Take the ordinary build where the index has no CPU build.
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
case $stages in *" train "*) need train ;; esac
case $stages in *" comfyui "*)
    need comfyui
    # ComfyUI does not start without torchvision and torchaudio. Both, and spandrel, require a torch of their own choice,
    # which is 5 GB of CUDA libraries; and with a CPU build of torch they may fail to import, which breaks transformers.
    # So they are installed alone, into a folder that only tools/comfyui/launch.py adds to the path.
    pins=$(grep -E '^(spandrel|torchaudio|torchvision)==' constraints.txt)
    if [ "$(cat .venv/comfyui/pins.txt 2>/dev/null)" != "$pins" ]; then
        rm -rf .venv/comfyui
        # shellcheck disable=SC2086 # several arguments
        $pip --no-deps --target .venv/comfyui $pins
        echo "$pins" >.venv/comfyui/pins.txt
    fi
    ;;
esac
case $stages in *" browser "*)
    $pip --constraint constraints.txt playwright
    # CHROMIUM, or any installed Chromium or Chrome, will do. Without one the rest still works, and says so.
    have=${CHROMIUM:-}
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
        have=$have$(command -v $name || true)
    done
    if [ -z "$have" ]; then
        echo "installing chromium"
        debian "sudo -n" chromium ||
            .venv/bin/python -m playwright install chromium ||
            echo "NO CHROMIUM could be installed: there will be no picture of the canvas and no browser tests" >&2
    fi
    ;;
esac
case $stages in *" check "*)
    need text train test
    if ! command -v node >/dev/null && ! command -v nodejs >/dev/null; then
        echo "installing nodejs, for the tests of the editor's extension"
        debian "sudo -n" nodejs ||
            echo "NO NODE could be installed: there will be no tests of the JavaScript modules" >&2
    fi
    ;;
esac
