// The page on which a person says which response is better: one question at a time, saved before the next one comes.

import { Kept, Refused, ask } from "/saving.js";
import { say, show, showStart, showTexts } from "/view.js";

const element = (id) => document.getElementById(id);
const WORDS = { left: "A is better", right: "B is better", tie: "tie", skip: "skipped" };
const KEYS = { a: "left", b: "right", t: "tie", s: "skip", ArrowLeft: "left", ArrowRight: "right" };

let session, kept, annotator, state;
let busy = true;
let raw = localStorage.getItem("rlaif:raw") === "yes";

// Seconds for which the question was in sight: a page in the background does not count.
const clock = {
  seen: 0,
  since: 0,
  start() {
    this.seen = 0;
    this.since = performance.now();
  },
  turn() {
    const now = performance.now();
    if (document.hidden) this.seen += now - this.since;
    this.since = now;
  },
  get seconds() {
    return (this.seen + (document.hidden ? 0 : performance.now() - this.since)) / 1000;
  },
};
document.addEventListener("visibilitychange", () => clock.turn());

async function begin() {
  // The token was spent when the page came; it need not stay in the address.
  if (location.search) history.replaceState(null, "", "/");
  element("raw").setAttribute("aria-pressed", String(raw));
  element("keys-on").checked = localStorage.getItem("rlaif:keys") !== "off";
  session = await ask("/api/session");
  kept = new Kept(session.study);
  for (const body of kept.unsent()) await deliver(body);
  annotator = session.annotator ?? sessionStorage.getItem(kept.prefix + "who");
  element("change").hidden = session.annotator !== null;
  if (annotator) await goOn();
  else showStart(session.annotators);
}

async function goOn() {
  const url = `/api/question?annotator=${encodeURIComponent(annotator)}`;
  enter(await work(() => ask(url)));
}

/** Do one thing at a time; a refusal is told and changes nothing. */
async function work(task) {
  busy = true;
  document.body.classList.add("busy");
  try {
    return await task();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(`Refused: ${error.message}`);
    return null;
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

function enter(now, words) {
  if (now === null) return;
  const before = state?.question;
  state = now;
  show(state, session.labels, raw);
  const question = state.question;
  if (question) {
    const draft = kept.get(noteName());
    openNote(Boolean(draft || question.before?.note), false);
    element("note").value = draft || question.before?.note || "";
  }
  clock.start();
  const at = question && `Question ${state.answered + state.skipped + 1} of ${state.total}: ${question.ask}`;
  if (state.fault) say(`Saved, but ${session.labels} cannot be written now: ${state.fault}`);
  else if (words) say(words);
  else if (at && !before) say("");
  if (!question) element("main").focus();
}

const noteName = () => `note:${annotator}:${state.question.pair}:${state.question.objective}`;

async function choose(choice) {
  if (busy || !state?.question) return;
  const question = state.question;
  const body = {
    annotator,
    pair: question.pair,
    objective: question.objective,
    choice,
    note: element("note").value.trim(),
    seconds: Math.min(clock.seconds, 1e6),
    nonce: crypto.randomUUID(),
  };
  kept.put(`unsent:${body.nonce}`, JSON.stringify({ at: Date.now(), body }));
  const name = noteName();
  const now = await work(() => deliver(body));
  if (now === null) return;
  kept.drop(name);
  enter(now, now.conflict ? "This question was answered in another tab; that answer stays." : `Saved: ${WORDS[choice]}`);
}

async function deliver(body) {
  try {
    return await ask("/api/answer", body, `your answer “${WORDS[body.choice]}”`);
  } catch (error) {
    if (error instanceof Refused) say(`Refused: ${error.message}`);
    if (!(error instanceof Refused)) throw error;
    return null;
  } finally {
    // It was saved, or the server will never take it.
    kept.drop(`unsent:${body.nonce}`);
  }
}

async function undo() {
  if (busy || state?.last == null) return;
  enter(await work(() => ask("/api/undo", { annotator, last: state.last })), "Taken back; answer again");
}

async function reopen() {
  if (busy) return;
  enter(await work(() => ask("/api/reopen", { annotator })), "What you skipped is asked again");
}

function openNote(open, focus) {
  element("note-box").hidden = !open;
  element("note-open").setAttribute("aria-expanded", String(open));
  if (open && focus) element("note").focus();
}

function toggleRaw() {
  raw = !raw;
  localStorage.setItem("rlaif:raw", raw ? "yes" : "no");
  element("raw").setAttribute("aria-pressed", String(raw));
  if (state?.question) showTexts(state.question, raw);
}

function keyOf(event) {
  // On a keyboard of another script the key in the place of A counts as A.
  if (/^[a-z?]$/i.test(event.key) || event.key.length > 1) return event.key.length > 1 ? event.key : event.key.toLowerCase();
  return event.code.startsWith("Key") ? event.code[3].toLowerCase() : event.key;
}

function scrollsSideways(node) {
  for (let at = node; at && at !== document.body; at = at.parentElement) {
    if (at.scrollWidth > at.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return true;
  }
  return false;
}

document.addEventListener("keydown", (event) => {
  const note = event.target === element("note");
  if (note && event.key === "Escape") {
    element("ask").focus();
    if (!element("note").value) openNote(false);
    return;
  }
  // A key that is held down is one answer, not a row of them.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (note || event.target.matches("input") || element("keys").open || !element("keys-on").checked) return;
  const key = keyOf(event);
  if (key.startsWith("Arrow") && scrollsSideways(event.target)) return;
  const actions = { u: undo, r: toggleRaw, "?": () => element("keys").showModal(), n: () => openNote(true, true) };
  const action = key in KEYS ? () => choose(KEYS[key]) : Object.hasOwn(actions, key) ? actions[key] : null;
  if (!action || (key === "n" && !state?.question)) return;
  event.preventDefault();
  action();
});

for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
element("undo").addEventListener("click", undo);
element("undo-last").addEventListener("click", undo);
element("reopen").addEventListener("click", reopen);
element("raw").addEventListener("click", toggleRaw);
element("help").addEventListener("click", () => element("keys").showModal());
element("keys-on").addEventListener("change", (event) => localStorage.setItem("rlaif:keys", event.target.checked ? "on" : "off"));
element("note-open").addEventListener("click", () => openNote(element("note-box").hidden, true));
element("note").addEventListener("input", () => kept.put(noteName(), element("note").value));
element("change").addEventListener("click", async () => {
  if (busy) return;
  sessionStorage.removeItem(kept.prefix + "who");
  session = await ask("/api/session");
  state = undefined;
  showStart(session.annotators);
});
element("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  annotator = element("name").value.trim();
  if (!annotator) return;
  sessionStorage.setItem(kept.prefix + "who", annotator);
  await goOn();
});
begin();
