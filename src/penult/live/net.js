// The server: questions and answers, progress of long ones, and whether it is still there.

const POLL = 3000;
const QUIET = 150; // milliseconds before a wait is spoken of
let signature = null; // of the run as this page knows it

class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

const cancelled = (error) => error.name === "AbortError";

// body: an object, sent as JSON, or a file. progress: called with {name, done, all} of long work.
async function ask(path, { body, signal, progress } = {}) {
  const options = { signal, credentials: "same-origin", cache: body === undefined ? "default" : "no-store" };
  if (body instanceof Blob) Object.assign(options, { method: "POST", body, headers: { "Content-Type": body.type || "image/png" } });
  else if (body !== undefined) Object.assign(options, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (!cancelled(error)) lost();
    throw error;
  }
  regained(answer);
  if (answer.headers.get("content-type")?.startsWith("text/event-stream")) return streamed(answer, progress);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw refused(found.error, answer.status);
  return found;
}

function refused(text, status) {
  if (status === 401) stranger();
  return new Refused(status === 401 ? "The server does not know this page yet." : text || `The server answers ${status}.`, status);
}

// A server that was started anew has another token, of which this page has to be told.
function stranger() {
  keepRoute();
  if (banners.has("stranger")) return;
  if (location.pathname.startsWith("/t/")) {
    banner("stranger", "The server was started anew: run the cell again that made this page.");
    return;
  }
  const field = el("input", { type: "text", "aria-label": "Address that penult app printed", placeholder: `${location.origin}/?token=…`, autocomplete: "off", spellcheck: "false" });
  const said = el("span", { class: "failed", role: "alert" });
  const submitted = async (event) => {
    event.preventDefault();
    said.textContent = "";
    try { await enter(field.value); } catch (error) { said.textContent = error.message; }
  };
  banner("stranger", el("span", null, "The server was started anew. Open the address that it prints, in this tab or another one, or give it here; what stands here goes on then, with its edits."),
    el("form", { class: "row", onsubmit: submitted }, field, el("button", { class: "tool" }, "Go on"), said));
}

async function enter(text) {
  let given = null;
  try { given = new URL(text.trim()); } catch { /* no address */ }
  const token = given?.searchParams.get("token");
  if (!token || !/^https?:$/.test(given.protocol)) throw new Error("Expected the address that penult app printed, with its token.");
  if (given.origin !== location.origin) { // the state goes along in the address
    location.href = `${given.origin}/?token=${encodeURIComponent(token)}${address(current)}`;
    return;
  }
  const answer = await fetch(`/?token=${encodeURIComponent(token)}`, { credentials: "same-origin", cache: "no-store" }).catch(() => null);
  if (!answer) throw new Error("The server does not answer.");
  if (!answer.ok) throw new Error("The server does not know this token: expected the address that it printed last.");
  await ask("api/alive");
}

// The result of long work, whose progress comes first.
async function streamed(answer, progress) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused("The server ended before it had an answer.", 0);
    text += value.replaceAll("\r", "");
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const [event, data] = eventOf(text.slice(0, end));
      text = text.slice(end + 2);
      if (event === "progress") progress?.(data);
      else if (event === "error") throw new Refused(data.error, 0);
      else if (event === "result") return data;
    }
  }
}

function eventOf(block) {
  let event = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data += line.slice(5);
  }
  return [event, data ? JSON.parse(data) : null];
}

// Banners: what a person has to know whatever they look at.

const banners = new Map();

function banner(kind, ...content) {
  const node = el("div", { class: "banner", role: "alert" }, content);
  banners.get(kind)?.remove();
  banners.set(kind, node);
  document.getElementById("main").prepend(node);
}

function unbanner(kind) {
  banners.get(kind)?.remove();
  banners.delete(kind);
}

function lost() {
  keepRoute();
  if (!banners.has("gone")) banner("gone", "The server does not answer. What you see stays, and goes on as soon as the server is there again: penult app ", el("bdi", null, about().live.run));
}

const whenBack = [];

function regained(answer) {
  const back = banners.has("gone") || (answer.ok && banners.has("stranger"));
  unbanner("gone");
  if (answer.ok) unbanner("stranger");
  if (answer.ok && back) keptRoute(); // one is there: it is not to be gone back to
  const found = answer.headers.get("x-penult-run");
  if (found && signature && found !== signature) {
    banner("changed", "The run has changed on disk: what stands here is of its former state. ",
      el("button", { type: "button", class: "tool", onclick: () => location.reload() }, "Read it anew"));
  }
  signature ||= found;
  if (back) for (const call of whenBack) call();
}

// Whether the server is there, and what others said meanwhile.
async function watchServer() {
  let version = "";
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL));
    if (document.hidden) continue;
    try {
      const found = await ask(`api/alive?version=${encodeURIComponent(version)}`);
      version = found.version ?? "";
      takeVerdicts(found.verdicts);
      if (found.problem) banner("verdicts", "No verdict is shown, and none is kept: ", el("bdi", null, found.problem), ".");
      else if (found.verdicts) unbanner("verdicts");
    } catch { /* the banner says so */ }
  }
}

// A line that says how far long work has come, with a button that ends it.
function progressLine(name, controller) {
  const text = el("span", null, `${name}…`);
  const ring = progressRing();
  const node = el("p", { class: "working", role: "status" }, ring.node, text,
    controller && el("button", { type: "button", class: "tool", onclick: () => controller.abort() }, "Cancel"));
  return { node, progress: ({ name: what, done, all }) => {
    text.textContent = all ? `${capital(what)}: ${count(done)} of ${count(all)}` : `${capital(what)}…`;
    ring.set(all ? done / all : null);
  } };
}

function progressRing() {
  const arc = svg("circle", { cx: 10, cy: 10, r: 8, pathLength: 100, class: "arc" });
  const node = svg("svg", { viewBox: "0 0 20 20", class: "ring-of turning", "aria-hidden": "true" }, svg("circle", { cx: 10, cy: 10, r: 8 }), arc);
  const set = (part) => {
    node.classList.toggle("turning", !known(part));
    arc.style.strokeDasharray = `${known(part) ? 100 * part : 25} 100`;
  };
  set(null);
  return { node, set };
}

// "Reading…" in a place that stays empty for longer than one notices; the wait's end takes it away.
function waiting(holder) {
  const line = el("p", { class: "wait", role: "status" }, "Reading…");
  const timer = setTimeout(() => holder.replaceChildren(line), QUIET);
  return () => { clearTimeout(timer); line.remove(); };
}

const failed = (error) => el("p", { class: "empty failed", role: "alert" }, error instanceof TypeError ? "The server does not answer." : error.message || "The server does not answer.");
