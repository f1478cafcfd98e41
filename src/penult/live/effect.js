// The effect of the state: asked for at each change, shown wherever its numbers stand.

const SLIDING = 60; // milliseconds between questions while a slider moves
const MOST_KEPT = 60; // answers, for undo and redo
let against = null; // {name, state}: what a person compares with; null for what comes of itself
let shown = null; // {before, after, answer}: the effect that stands on the page
let problem = ""; // why the state has no effect
const answers = new Map();
const followers = new Map(); // node → what brings it up to date
let inFlight = null; // {key, controller, begun}
let next = null;

const effectNow = () => shown?.answer.effect ?? null;
// Beside the head that was edited; a sparse head by itself beside the network.
const baseline = () => against?.state ?? (state.edits.length ? { head: state.head, edits: [] } : PLAIN);
const keyOf = (before, after) => JSON.stringify([before, after]);

// update(): called now and after each change, as long as the node is on the page.
function follow(node, update) {
  followers.set(node, { update, born: false });
  update();
  return node;
}

function refollow() {
  for (const [node, one] of followers) {
    if (node.isConnected) {
      one.born = true;
      one.update();
    } else if (one.born) followers.delete(node);
  }
}

function stateChanged(sliding) {
  problem = "";
  refollow();
  refresh(sliding);
}

function refresh(sliding = false) {
  const [before, after] = [baseline(), state];
  const key = keyOf(before, after);
  next = null;
  if (same(before, after)) { take(null); return; }
  if (answers.has(key)) { take({ before, after, answer: answers.get(key) }); return; }
  next = { before, after, key, sliding };
  if (!inFlight) setTimeout(askEffect, sliding ? SLIDING : 0);
  else if (inFlight.slow) inFlight.controller.abort(); // a refit that nobody waits for any more
}

async function askEffect() {
  if (inFlight || !next) return;
  const { before, after, key, sliding } = next;
  next = null;
  const controller = new AbortController();
  inFlight = { key, controller, slow: false };
  const line = progressLine("Working", controller);
  const timer = setTimeout(() => dockWaits(line.node), QUIET);
  const own = !against && same(before, { head: after.head, edits: [] });
  try {
    const answer = await ask(own ? "api/effect" : "api/compare", {
      body: own ? { state: after, name: "now" } : { before, after }, signal: controller.signal,
      progress: (found) => { inFlight.slow = true; line.progress(found); },
    });
    takeImages(answer.images);
    answers.set(key, answer);
    if (answers.size > MOST_KEPT) answers.delete(answers.keys().next().value);
    const wanted = same(after, state) && same(before, baseline());
    // Of a slider that still moves the last answer that came; never one that comes after an undo.
    if (wanted || (sliding && next?.sliding)) take({ before, after, answer });
  } catch (error) {
    if (same(after, state)) {
      problem = cancelled(error) ? "The work was cancelled." : error.message;
      take(null, problem);
    }
  } finally {
    clearTimeout(timer);
    dockWaits(null);
    inFlight = null;
    if (next) askEffect();
  }
}

function take(found, why = "") {
  next = found && same(found.after, state) ? null : next;
  problem = why;
  shown = found;
  refollow();
  // Lists are drawn anew; all else follows by itself.
  const [name] = parts(current || "");
  if (name === "classes" || name === "features") draw(current, { focus: false, scroll: scrollY });
}

// What stands at a class, a feature or a pair now

const rowOf = (c) => effectNow()?.classes.find((row) => row.class === c) ?? null;

// Accuracy of a class with the edits; null where there are none, or none that is known.
function after(c) {
  const found = effectNow();
  if (!found) return null;
  const row = rowOf(c);
  if (row) return row.after;
  if (found.classes.length < found.n_changed) return null;
  return stayed(c);
}

// Of a class that nothing changed: as the head is that is edited, where the page knows it.
function stayed(c) {
  const row = about().classes[c];
  if (shown.before.edits.length) return null;
  if (shown.before.head === "dense") return row.dense;
  const { head } = about();
  return head && head.select === shown.before.head.select && head.k === shown.before.head.k ? row.sparse : null;
}

function afterCell(c) {
  const row = rowOf(c);
  const value = after(c);
  if (!known(value)) return el("span", { class: "nothing" }, "–");
  return [row && el("span", { class: row.loss > 0 ? "loss" : "gain" }, changed(row.loss), " "), el("span", { class: "aligned" }, percent(value))];
}

const weightNow = (c, j) => shown?.answer.changed.find(([d, i]) => d === c && i === j) ?? null;

function classNow(c) {
  const node = el("div", { class: "chosen now", "aria-live": "polite" });
  return follow(node, () => {
    const found = effectNow();
    const value = after(c);
    const row = rowOf(c);
    node.hidden = !found;
    node.replaceChildren(el("dt", null, "After edits"), el("dd", null, percent(value)),
      el("dd", { class: "note" }, row ? `${changed(row.loss)} points (${changedBetween(row.interval)}); ${count(row.lost)} lost, ${count(row.won)} won` : known(value) ? "as before" : "not among the classes that change most"));
  });
}

// Marks of a feature in lists: what is done to it.
function marks(j) {
  const found = state.edits.filter((edit) => edit.feature === j);
  return found.length ? el("span", { class: "mark edited", title: found.map(editText).join("; ") }, found.length === 1 ? editText(found[0]).replace(/^\d+ /, "") : plural(found.length, "edit", "edits")) : null;
}

// The view of the effect, and what it is compared with

function nowView() {
  const holder = el("div", { class: "now-view" });
  let drawn = null;
  follow(holder, () => {
    const found = effectNow();
    if (found && found === drawn) return;
    drawn = found;
    holder.replaceChildren();
    append(holder, [found ? effectContent(found) : el("p", { class: "empty" }, problem || nothingYet())]);
  });
  return {
    title: "Effect of the edits",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Effect of the edits"),
        el("p", null, `Before and after, on the same ${things()}. Every number is what penult edit says of the same recipe.`)),
      versus(), holder,
    ],
  };
}

const nothingYet = () => (isPlain(state) ? `Nothing is edited yet: on the page of a class or of a feature a feature can be switched off, capped or weighted.` : "Reading…");

// Two states side by side: which one is before, which one now.
function versus() {
  const node = el("div", { class: "versus" });
  return follow(node, () => {
    const earlier = [...new Map([...past].reverse().filter((one) => !same(one, state)).map((one) => [JSON.stringify(one), one])).values()].slice(0, 12);
    const choices = [
      ["", "of itself", null],
      ...(isPlain(state) ? [] : [["plain", "The network as it is", PLAIN]]),
      ...namedStates().map((one, i) => [`n${i}`, `Named: ${one.name}`, one.state]),
      ...earlier.map((one, i) => [`e${i}`, `Earlier: ${stateText(one)}`, one]),
    ];
    choices[0][1] = state.edits.length ? `The same head without edits` : "The network as it is";
    const select = el("select", { onchange: () => {
      const [, name, found] = choices[select.selectedIndex];
      compareWith(found && { name, state: found });
    } }, choices.map(([value, text]) => el("option", { value }, text)));
    select.selectedIndex = against ? Math.max(0, choices.findIndex(([, , found]) => found && same(found, against.state))) : 0;
    const side = (title, found, control) => el("div", { class: "side" }, el("h2", null, title), control, el("p", { class: "note" }, el("b", null, found.head === "dense" ? "The network's own head" : `Sparse head ${found.head.select}, k = ${found.head.k}`)),
      found.edits.length ? el("ol", { class: "steps" }, found.edits.map((edit) => el("li", null, el("bdi", null, editText(edit))))) : el("p", { class: "note" }, "No edits."));
    node.replaceChildren(side("Before", baseline(), el("label", { class: "choice" }, "Compare with", select)), side("After", state));
  });
}

function compareWith(found) {
  against = found;
  refollow();
  refresh();
}

// On the list of edits the one that is being made comes first.
function nowCard() {
  const node = el("div", { class: "now-card" });
  return follow(node, () => {
    const found = effectNow();
    node.replaceChildren(el("a", { class: "card", href: "#edit/now" }, el("span", { class: "card-name" }, "The state below"),
      el("span", { class: "said" }, found ? `${percent(found.overall.before)} → ${percent(found.overall.after)}` : isPlain(state) ? "nothing is edited yet" : "–", el("span", { class: "as" }, el("bdi", null, stateText(state))))));
  });
}
