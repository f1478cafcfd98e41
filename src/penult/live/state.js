// The state: a head and the edits of it. It lives here, in the address and in this tab.

const PLAIN = { head: "dense", edits: [] };
const MERGED = 1500; // milliseconds within which moves of one slider are one step
const RANKS = { refit: 1, cap: 2 }; // a head with bounds cannot be refitted: what caps comes last

let state = PLAIN;
let past = []; // earlier states, the last one last
let future = []; // states that were undone
let lastMove = { name: "", at: 0 };

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const isPlain = (found) => same(found, PLAIN);
const storeName = (what) => `penult-${what}-${location.pathname}`;

const suffix = () => (isPlain(state) ? "" : `!${encodeURIComponent(JSON.stringify(state))}`);

// The state that an address holds; null where it holds none, or none that can be read.
function addressed() {
  const found = /!(%7B.*)$/.exec(location.hash);
  if (!found) return null;
  let made = null;
  try { made = checked(JSON.parse(decodeURIComponent(found[1]))); } catch { /* told of below */ }
  if (!made) say("The edits in this address cannot be read: they are left out.");
  return made;
}

const isEdit = (edit) => typeof edit?.edit === "string" && (edit.value === undefined || Number.isFinite(edit.value));

function checked(found) {
  const head = found?.head === "dense" || (typeof found.head?.select === "string" && Number.isFinite(found.head.k));
  const edits = Array.isArray(found?.edits) && found.edits.every(isEdit);
  return head && edits ? { head: found.head, edits: found.edits } : null;
}

// name: of a slider, whose moves are one step.
function change(next, { name = "" } = {}) {
  if (same(next, state)) return;
  const now = Date.now();
  const moved = name && name === lastMove.name && now - lastMove.at < MERGED;
  lastMove = { name, at: now };
  if (!moved) past.push(state);
  future = [];
  become(next, Boolean(name));
}

function become(next, sliding = false) {
  state = next;
  keepAddress(hashRoute() || root.dataset.start);
  remember();
  stateChanged(sliding);
}

function undo() {
  if (!past.length) return;
  future.push(state);
  lastMove = { name: "", at: 0 };
  become(past.pop());
}

function redo() {
  if (!future.length) return;
  past.push(state);
  become(future.pop());
}

function remember() {
  try {
    sessionStorage.setItem(storeName("state"), JSON.stringify({ state, past, future }));
    if (!isPlain(state)) localStorage.setItem(storeName("last"), JSON.stringify(state));
  } catch { /* kept in the address alone */ }
}

// Where one was when the server went: an address with another token opens there again.
function keepRoute() {
  try { sessionStorage.setItem(storeName("route"), current); } catch { /* the summary, then */ }
}

function keptRoute() {
  try {
    const found = sessionStorage.getItem(storeName("route"));
    sessionStorage.removeItem(storeName("route"));
    return found;
  } catch { return null; }
}

function recall() {
  const route = hashRoute() || keptRoute();
  let found = null;
  try { found = JSON.parse(sessionStorage.getItem(storeName("state"))); } catch { /* as if nothing were kept */ }
  if (found) ({ past, future } = found);
  state = addressed() ?? (found && checked(found.state)) ?? PLAIN;
  if (found && !same(found.state, state)) past.push(found.state);
  remember();
  if (!isPlain(state) || route) keepAddress(route || root.dataset.start);
}

// Another address was given, or one went back: views go back, the state stays unless the address names one.
function returned() {
  const named = history.state?.visited ? null : addressed();
  if (named && !same(named, state)) {
    past.push(state);
    future = [];
    become(named);
  } else keepAddress(hashRoute() || root.dataset.start);
}

// Names that people gave to states of this run.

function namedStates() {
  try { return JSON.parse(localStorage.getItem(storeName("states"))) || []; } catch { return []; }
}

function keepStates(found) {
  try { localStorage.setItem(storeName("states"), JSON.stringify(found)); } catch { say("This browser keeps nothing for this page."); }
}

// Edits of the state

// As a recipe names a class: by its name, where that is its own and shown as it is.
function classIn(c) {
  const name = className(c);
  const plain = !/[\u2400-\u2421\ufffd]/.test(name) && name !== "(no name)" && !/^\s|\s$/.test(name);
  return plain && about().classes.filter((row) => row.name === name).length === 1 ? name : c;
}

function isOf(edit, c) {
  if (!known(edit.class)) return c === null;
  return c !== null && classOf(edit) === c;
}

function classOf(edit) {
  if (typeof edit.class === "number") return edit.class;
  const found = about().classes.findIndex((row) => row.name === edit.class);
  return found < 0 && /^\d+$/.test(edit.class) ? Number(edit.class) : found;
}

const editsOf = (j, c) => state.edits.filter((edit) => edit.feature === j && isOf(edit, c));

const WEIGHING = ["off", "set", "scale"];

// Put an edit in, in place of what it replaces; null for one that is to go.
function putEdit(kinds, j, c, edit, options) {
  const kept = state.edits.filter((one) => !(one.feature === j && isOf(one, c) && kinds.includes(one.edit)));
  const at = state.edits.findIndex((one) => one.feature === j && isOf(one, c) && kinds.includes(one.edit));
  if (!edit) { change({ ...state, edits: kept }, options); return; }
  if (at >= 0 && (RANKS[state.edits[at].edit] || 0) === (RANKS[edit.edit] || 0)) kept.splice(Math.min(at, kept.length), 0, edit);
  else insert(kept, edit);
  change({ ...state, edits: kept }, options);
}

function insert(edits, edit) {
  const rank = (one) => RANKS[one.edit] || 0;
  const place = edits.findIndex((one) => rank(one) > rank(edit));
  edits.splice(place < 0 ? edits.length : place, 0, edit);
}

function pairEdit(kind, j, c, rest) {
  return { edit: kind, feature: j, ...(c === null ? {} : { class: classIn(c) }), ...rest };
}

function editText(edit) {
  const what = known(edit.feature) ? String(edit.feature) : known(edit.component) ? `direction ${edit.component}` : edit.direction ? "a direction" : "";
  const place = known(edit.at) && edit.edit !== "set" ? ` at ${typeof edit.at === "number" ? number(edit.at) : `its ${edit.at === "class" ? "class's mean" : "mean"}`}` : "";
  const end = {
    off: `off${place}`, cap: `capped${place}`, set: `weight ${number(edit.value)}`, scale: `× ${short(edit.value)}`,
    drop: "hardly used ones off", refit: `refit to ${edit.attribute ? `${edit.to} by ${edit.attribute}` : edit.to}`,
  }[edit.edit] ?? edit.edit;
  const whose = known(edit.class) ? ` for ${classOf(edit) >= 0 ? className(classOf(edit)) : edit.class}` : known(edit.feature) ? " for all" : "";
  return `${what} ${end}${whose}`.trim();
}

const stateText = (found) => {
  const head = found.head === "dense" ? "the network" : `${found.head.select}, k = ${found.head.k}`;
  const some = found.edits.slice(0, 3).map(editText).join("; ");
  return `${head}${some ? `: ${some}` : ""}${found.edits.length > 3 ? ` and ${count(found.edits.length - 3)} more` : ""}`;
};
