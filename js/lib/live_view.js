const HEIGHT = 220; // pixels, at least
const LATEST = 1000; // milliseconds that pictures may wait; older ones are left out

/**
 * A place on a node where frames are played as they come, at their own rate, and the finished video afterwards.
 *
 * It is drawn by its own elements, alike in the classic canvas and in Nodes 2.0, and takes no part in saved workflows.
 * @param url {(path: string) => string} address of a route of the server
 */
export function addLiveView(node, url) {
  const box = document.createElement("div");
  Object.assign(box.style, { boxSizing: "border-box", minWidth: 0, overflow: "hidden", height: "100%" });
  const picture = document.createElement("img");
  const video = document.createElement("video");
  Object.assign(video, { controls: true, loop: true, muted: true, autoplay: true, playsInline: true });
  for (const part of [picture, video]) {
    Object.assign(part.style, { display: "none", width: "100%", height: "100%", objectFit: "contain" });
    box.append(part);
  }
  const widget = node.addDOMWidget("live", "sf_live", box, {
    serialize: false, // not in what Run sends
    hideOnZoom: false,
    getMinHeight: () => HEIGHT,
  });
  widget.serialize = false; // nor in the saved workflow

  const waiting = []; // {src, milliseconds}
  let timer = 0;

  function show(part) {
    picture.style.display = part === picture ? "block" : "none";
    video.style.display = part === video ? "block" : "none";
  }

  function next() {
    timer = 0;
    while (waiting.length > 1 && waiting.reduce((sum, one) => sum + one.milliseconds, 0) > LATEST) waiting.shift();
    const frame = waiting.shift();
    if (!frame) return;
    picture.src = frame.src;
    show(picture);
    timer = setTimeout(next, frame.milliseconds);
  }

  function stop() {
    clearTimeout(timer);
    timer = waiting.length = 0;
  }

  return {
    /** Frames of a chunk, JPEG in base64, that last for so many seconds together. */
    play(frames, seconds) {
      const milliseconds = (1000 * seconds) / Math.max(1, frames.length);
      waiting.push(...frames.map((frame) => ({ src: `data:image/jpeg;base64,${frame}`, milliseconds })));
      if (!timer) next();
    },
    /** The video of a run that has ended: a file as the server names it. */
    showVideo({ filename, subfolder, type }) {
      stop();
      video.src = url(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
      show(video);
    },
    remove() {
      stop();
      video.removeAttribute("src");
      video.load();
    },
  };
}
