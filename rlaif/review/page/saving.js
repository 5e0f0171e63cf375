// Talk to the server so that no answer is lost: what is not saved yet is kept in this browser and sent again.

const banner = document.getElementById("banner");
const bannerText = document.getElementById("banner-text");
const retryButton = document.getElementById("retry");
const LONGEST_WAIT = 5000;
const PATIENCE = 15000;

let wake = () => {};
retryButton.addEventListener("click", () => wake());
window.addEventListener("online", () => wake());

/** The server understood and refused: sending the same again would not help. */
export class Refused extends Error {}

/** Ask until there is an answer. Returns the server's value; `conflict` says that another tab was first. */
export async function ask(path, body, what) {
  for (let wait = 500; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
    const reply = await once(path, body);
    if (reply.done) {
      banner.hidden = true;
      if (reply.refused) throw new Refused(reply.refused);
      return { ...reply.value, conflict: reply.status === 409 };
    }
    warn(reply.why, what);
    await pause(wait);
  }
}

async function once(path, body) {
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), PATIENCE);
  try {
    const post = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    const response = await fetch(path, { ...post, signal: giveUp.signal, credentials: "same-origin" });
    const value = await response.json();
    if (response.ok || response.status === 409) return { done: true, value, status: response.status };
    if (response.status === 401) {
      return { why: "This browser's session has ended: open the address that the terminal printed last." };
    }
    if (response.status >= 500) return { why: `The server cannot save: ${value.error}` };
    return { done: true, refused: value.error };
  } catch {
    return { why: "The server does not answer. Is rlaif review still running?" };
  } finally {
    clearTimeout(timer);
  }
}

function warn(why, what) {
  const text = what ? `Not saved yet: ${what}. It is kept in this browser and sent again until it is saved. ${why}` : why;
  // Told once: a screen reader would say it again at each try.
  if (bannerText.textContent !== text) bannerText.textContent = text;
  retryButton.textContent = what ? "Send now" : "Try now";
  banner.hidden = false;
}

function pause(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

/** What this browser keeps for one study: answers on their way, and notes being written. */
export class Kept {
  constructor(study) {
    this.prefix = `rlaif:${study}:`;
  }

  put(name, value) {
    try {
      localStorage.setItem(this.prefix + name, value);
    } catch {
      // A full or forbidden store: the answer is still sent, and the page waits until it is saved.
    }
  }

  get(name) {
    return localStorage.getItem(this.prefix + name) ?? "";
  }

  drop(name) {
    localStorage.removeItem(this.prefix + name);
  }

  /** Answers that were given and of which it is not known that they were saved, the oldest first. */
  unsent() {
    const start = `${this.prefix}unsent:`;
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(start))
      .map((key) => JSON.parse(localStorage.getItem(key)))
      .sort((one, other) => one.at - other.at)
      .map((each) => each.body);
  }
}
