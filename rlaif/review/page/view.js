// Put what the server said on the page. Texts come in two forms: as written, and as HTML that the server made safe.

const element = (id) => document.getElementById(id);
// With Trusted Types the browser lets HTML in through this one place alone.
const policy = window.trustedTypes?.createPolicy("rlaif", { createHTML: (html) => html });
const ROLES = { system: "System", developer: "Developer", user: "User", assistant: "Assistant", tool: "Tool" };

let shownPair = null;

/** Show the name of the person, how far they are, and their question, or that there is none. */
export function show(state, labels, raw) {
  const { question, answered, skipped, total } = state;
  element("who").textContent = state.annotator;
  element("bar").max = Math.max(total, 1);
  element("bar").value = answered;
  element("count").textContent = `${answered.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  element("count").textContent += skipped ? `, ${skipped.toLocaleString("en")} skipped` : "";
  element("start").hidden = true;
  element("pair").hidden = element("answer").hidden = !question;
  element("done").hidden = Boolean(question);
  element("undo").disabled = element("undo-last").disabled = state.last === null;
  document.title = question ? `${answered} of ${total} - rlaif review` : "Done - rlaif review";
  if (question) showQuestion(question, raw);
  else showDone(state, labels);
}

function showDone({ answered, skipped, fault }, labels) {
  shownPair = null;
  const left = skipped ? ` ${count(skipped, "question was", "questions were")} skipped.` : "";
  element("done-title").textContent = skipped ? "All that you did not skip is done" : "All done";
  element("done-text").textContent = `${count(answered, "answer is", "answers are")} saved.${left} `;
  element("done-text").textContent += fault ? `They are not in ${labels} yet: ${fault}` : `The labels are in ${labels}.`;
  element("reopen").hidden = !skipped;
}

function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function showQuestion(question, raw) {
  element("ask").textContent = question.ask;
  const among = question.objectives > 1 ? ` (${question.objective_number} of ${question.objectives})` : "";
  element("objective").textContent = question.objective + among;
  element("objective").hidden = question.objectives === 1 && question.objective === "overall";
  element("number").textContent = `pair ${question.number.toLocaleString("en")} of ${question.of.toLocaleString("en")}`;
  element("guide").hidden = question.principles.length === 0;
  element("principles").replaceChildren(...question.principles.map((text) => made("li", text)));
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.classList.toggle("before", button.dataset.choice === question.before?.choice);
  }
  // The next objective of the same pair leaves the texts where they were scrolled to.
  if (shownPair !== question.pair) showTexts(question, raw);
}

/** Show the texts of a pair again, as written or with their formatting. */
export function showTexts(question, raw) {
  const fresh = shownPair !== question.pair;
  shownPair = question.pair;
  const turns = question.prompt.map((turn) => {
    const item = made("li", "");
    item.className = `turn ${turn.role}`;
    item.append(made("span", ROLES[turn.role] ?? turn.role, "role"), text(turn, raw));
    return item;
  });
  element("turns").replaceChildren(...turns);
  element("left").replaceChildren(text(question.left, raw));
  element("right").replaceChildren(text(question.right, raw));
  if (!fresh) return;
  // A conversation is read to its last turn, a response from its first line.
  element("turns").scrollTop = element("turns").scrollHeight;
  element("left").scrollTop = element("right").scrollTop = 0;
  window.scrollTo(0, 0);
}

function text(given, raw) {
  const box = made("div", "", "words");
  if (raw || given.html === null) {
    const written = made("pre", given.raw, "as-written");
    written.dir = "auto";
    box.append(written);
  } else {
    box.append(fragment(given.html));
    for (const link of box.querySelectorAll("a")) {
      // The address of a link is part of what is judged; one that is its own text is not said twice.
      link.classList.toggle("bare", link.textContent === link.getAttribute("href"));
    }
  }
  if (!given.raw.trim()) box.append(made("p", "(empty)", "muted"));
  if (given.html === null && !raw) box.append(made("p", "Shown as written: too long or too deeply nested.", "muted"));
  if (given.hidden.length) box.append(made("p", `Holds characters that do not show: ${given.hidden.join(", ")}`, "hidden-note"));
  return box;
}

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = policy ? policy.createHTML(html) : html;
  return template.content;
}

function made(name, words, className) {
  const node = document.createElement(name);
  node.textContent = words;
  if (className) node.className = className;
  return node;
}

/** Ask for a name, with those that have labelled before to choose from. */
export function showStart(names) {
  for (const id of ["pair", "answer", "done"]) element(id).hidden = true;
  element("names").replaceChildren(...names.map((name) => Object.assign(made("option", ""), { value: name })));
  element("start").hidden = false;
  element("name").focus();
}

/** Say something to all: it is read, and read out. */
export function say(words) {
  element("status").textContent = words;
}
