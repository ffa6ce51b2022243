import { make } from "./controls.js";
import { Asked, actionInWords, isLive } from "./runs.js";
import { fill } from "../lib/i18n.js";

const LISTED = 3; // actions
const LONGEST_BLEND = 16; // chunks

/**
 * What a run is told by hand, below its picture: prompts, and what is done to chunks. Shown while the run goes on.
 * @param takes "all", or "stop" for a node that can only be stopped
 * @param send {(body) => Promise} rejects with an Error that says why not
 * @param refused {(error) => void}
 */
export function createSteeringBar(said, takes, send, refused) {
  const asked = new Asked();
  let state = null;
  let news = ""; // what took effect last

  async function ask(body) {
    const of = state;
    try {
      await send({ node_id: of.node_id, ...body });
    } catch (error) {
      refused(error);
      return false;
    }
    // the state may have said so before the answer came
    if (state?.run === of.run) asked.add(body, of);
    show(state);
    return true;
  }

  const prompt = make("input", { type: "text", "aria-label": said.prompt, maxLength: 2000 });
  const blend = make("input", { type: "number", min: 1, max: LONGEST_BLEND, step: 1, value: 1 });
  const blended = make("label", { title: said.blendTitle }, said.blend, blend);
  const button = (action, text, title) =>
    make("button", { type: "button", title, onclick: () => ask({ action: action() }) }, text);
  const pausing = () => (state?.state === "paused" ? "resume" : "pause");
  const pause = button(pausing, said.pauseRun, said.pauseRunTitle);
  const reroll = button(() => "reroll", said.reroll, said.rerollTitle);
  const cut = button(() => "cut", said.cut, said.cutTitle);
  const stop = button(() => "stop", said.stopRun, said.stopTooltip);
  const waits = make("span", { className: "sf-waits", role: "status" });
  const done = make("div", { className: "sf-done" });
  const lines = [make("div", { className: "sf-row" }, prompt, blended)];
  lines.push(make("div", { className: "sf-row" }, pause, reroll, cut, stop, waits), done);
  const element = make("div", { className: "sf-steering", hidden: true }, ...lines);
  if (takes === "stop") for (const part of [lines[0], pause, reroll, cut, done]) part.remove();

  prompt.onkeydown = async (event) => {
    if (event.isComposing) return; // Enter picks a word
    if (event.key === "Escape") prompt.value = "";
    const text = prompt.value.trim();
    if (event.key !== "Enter" || !text) return;
    event.preventDefault();
    const chunks = Math.max(1, Math.min(LONGEST_BLEND, Math.round(blend.valueAsNumber) || 1));
    if ((await ask({ action: "prompt", prompt: text, blend: chunks })) && prompt.value.trim() === text) prompt.select();
  };

  function show(now) {
    if (now?.run !== state?.run) {
      asked.clear();
      news = "";
    }
    state = now;
    element.hidden = !isLive(state);
    if (!state) return;
    const taken = asked.settle(state).at(-1);
    if (taken) news = fill(said.fromChunk, { n: taken.chunk, what: actionInWords(taken, said) });
    const waiting = asked.waiting.map((body) => (body.action === "prompt" ? body.prompt : said[`${body.action}Waits`]));
    waits.textContent = waiting.length ? fill(said.waitsFor, { what: waiting.join(", ") }) : news;
    waits.title = waits.textContent;
    waits.classList.toggle("sf-asked", waiting.length > 0);

    const ending = state.state === "stopping";
    prompt.disabled = blend.disabled = !state.steerable || ending;
    prompt.title = state.steerable ? said.prompt : said.notSteerable;
    prompt.placeholder = state.steerable ? state.prompt || said.promptHere : said.notSteerable;
    const told = (...actions) => asked.waiting.some((body) => actions.includes(body.action));
    pause.textContent = state.state === "paused" ? said.resumeRun : said.pauseRun;
    pause.title = state.state === "paused" ? said.resumeRunTitle : said.pauseRunTitle;
    pause.disabled = ending || told("pause", "resume");
    reroll.disabled = ending || !state.chunk || told("reroll");
    cut.disabled = ending || told("cut");
    stop.disabled = ending || told("stop");
    done.replaceChildren(...state.actions.slice(-LISTED).reverse().map(line));
  }

  function line(action) {
    const text = fill(said.atChunk, { n: action.chunk, what: actionInWords(action, said) });
    return make("div", { title: text }, text);
  }

  return { element, show };
}
