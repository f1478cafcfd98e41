// The dock: the state and what comes of it, below every view.

let dock = null;
let waits = null; // where long work says how far it is

function makeDock() {
  const numbers = el("p", { class: "dock-numbers", role: "status", "aria-live": "polite" });
  const step = (id, label, key, glyph, call) => el("button", { type: "button", class: "tool", id, "aria-label": label, title: `${label} (${key})`, "aria-keyshortcuts": key, onclick: call }, el("span", { class: "glyph", "aria-hidden": "true" }, glyph));
  const back = step("undo", "Undo", "z", "↶", undo);
  const forth = step("redo", "Redo", "Shift+Z", "↷", redo);
  const chips = el("ul", { class: "chips", "aria-label": "Edits" });
  const more = el("div", { class: "dock-more", id: "dock-more" });
  const fold = el("button", { type: "button", class: "tool fold", "aria-controls": "dock-more", "aria-label": "Head and edits", "aria-keyshortcuts": "d", title: "Show or hide the head and the edits (d)", onclick: toggleDock });
  waits = el("div", { class: "dock-waits" });
  more.append(headControl(), refitControl(), chips,
    el("div", { class: "dock-doing" },
      doing("Effect", "e", () => go("edit/now")), doing("States", "n", statesDialog), doing("Save", "w", saveDialog), canTry() && doing(`Try ${aThing()}`, "o", chooseFile),
      about().live.runs > 1 && el("a", { class: "tool", href: "../../" }, "Runs")));
  dock = el("section", { class: "dock", "aria-label": "Edits of the head" },
    el("div", { class: "dock-line" }, fold, numbers, el("div", { class: "dock-steps" }, back, forth)), waits, more);
  document.body.append(dock);
  const folded = flagOf("folded") ?? matchMedia("(max-width: 720px)").matches;
  setFolded(folded);
  follow(dock, () => {
    back.disabled = !past.length;
    forth.disabled = !future.length;
    numbers.replaceChildren();
    append(numbers, dockNumbers());
    chips.hidden = !state.edits.length;
    chips.replaceChildren(...state.edits.map(chip));
    sizeDock();
  });
  new ResizeObserver(sizeDock).observe(dock);
}

const sizeDock = () => root.style.setProperty("--dock", `${dock.offsetHeight}px`);

function flagOf(what) {
  try { return JSON.parse(localStorage.getItem(`penult-${what}`)); } catch { return null; }
}

function toggleDock() {
  setFolded(!dock.classList.contains("folded"));
  try { localStorage.setItem("penult-folded", String(dock.classList.contains("folded"))); } catch { /* for this visit */ }
}

function setFolded(folded) {
  dock.classList.toggle("folded", folded);
  const button = dock.querySelector(".fold");
  button.setAttribute("aria-expanded", String(!folded));
  button.replaceChildren(el("span", { class: "glyph", "aria-hidden": "true" }, folded ? "▴" : "▾"));
}

const doing = (label, key, call) => el("button", { type: "button", class: "tool", "aria-keyshortcuts": key, title: `${label} (${key})`, onclick: call }, label);

function dockWaits(node) {
  waits.replaceChildren();
  if (node) waits.append(node);
}

// Accuracy before and after, and for whom it is worst.
function dockNumbers() {
  const found = effectNow();
  if (problem) return [el("span", { class: "failed", role: "alert" }, problem)];
  const edits = state.edits.length ? plural(state.edits.length, "edit", "edits") : "no edits";
  if (!found) {
    if (isPlain(state) && !against) return [el("b", null, percent(about().about.dense_accuracy)), ` ${about().about.own_labels ? "like" : "by"} the network, ${edits}`];
    return [el("span", { class: "note" }, "Reckoning…")];
  }
  const { overall } = found;
  return [
    el("b", null, percent(overall.before), " → ", percent(overall.after)),
    el("span", { class: overall.loss > 0 ? "loss" : "gain" }, ` ${changed(overall.loss)}`),
    el("span", { class: "note" }, ` (${changedBetween(overall.interval)} points), ${edits}`),
    el("span", { class: "note dock-worst" }, worstNow(found)),
  ];
}

function worstNow(found) {
  const groups = found.groups.map((part) => part.after.worst && [". Worst group ", el("bdi", null, `${className(part.after.worst.class)}, ${part.after.worst.value}`), ` ${percent(part.after.worst.accuracy)}`]).filter(Boolean);
  const accuracies = about().classes.map((row, c) => [after(c), c]).filter(([value, c]) => known(value) && about().classes[c].n_eval > 0);
  const worst = accuracies.reduce((least, one) => (!least || one[0] < least[0] ? one : least), null);
  return [worst && accuracies.length === about().classes.filter((row) => row.n_eval > 0).length ? [". Worst class ", classLink(worst[1]), ` ${percent(worst[0])}`] : null, groups[0]];
}

function chip(edit) {
  const text = editText(edit);
  return el("li", { class: "chip" }, known(edit.feature) ? el("a", { href: `#feature/${edit.feature}`, title: edit.reason || null }, el("bdi", null, text)) : el("bdi", { title: edit.reason || null }, text),
    el("button", { type: "button", "aria-label": `Remove: ${text}`, onclick: () => change({ ...state, edits: state.edits.filter((one) => one !== edit) }) }, "×"));
}

// Which head: the network's own, or one along a path of sparse ones.
function headControl() {
  const { heads } = about().live;
  const paths = [...new Set(heads.map((head) => head.select))];
  const along = (select) => heads.filter((head) => head.select === select).sort((a, b) => a.k - b.k);
  const select = el("select", { "aria-label": "Head", onchange: () => {
    const path = along(select.value);
    const own = about().head;
    const start = path.find((head) => own && head.select === own.select && head.k === own.k) || path.at(-1);
    change({ ...state, head: select.value ? { select: select.value, k: start.k } : "dense" });
  } }, el("option", { value: "" }, "Network"), paths.map((name) => el("option", { value: name }, `Sparse: ${name}`)));
  const output = el("output");
  const input = el("input", { type: "range", min: 0, step: 1, "aria-label": "Features per class, k", oninput: () => {
    const head = along(select.value)[Number(input.value)];
    output.textContent = `k = ${head.k}`;
    change({ ...state, head: { select: head.select, k: head.k } }, { name: "k" });
  } });
  const node = el("div", { class: "dock-head" }, el("label", { class: "choice" }, "Head", select), el("span", { class: "sliding" }, input, output));
  return follow(node, () => {
    const dense = state.head === "dense";
    select.value = dense ? "" : state.head.select;
    input.parentElement.hidden = dense;
    if (dense) return;
    const path = along(state.head.select);
    input.max = path.length - 1;
    input.value = path.findIndex((head) => head.k === state.head.k);
    output.textContent = `k = ${state.head.k}`;
    input.setAttribute("aria-valuetext", output.textContent);
  });
}

// Weights fitted anew after what is switched off, before what is capped.
function refitControl() {
  const attributes = Object.keys(about().live.attributes || {});
  const choices = [["", "no refit", null], ["labels", "to the labels", { to: "labels" }], ["probabilities", "to the network's probabilities", { to: "probabilities" }],
    ...attributes.map((name, i) => [`balanced${i}`, `balanced by ${name}`, { to: "balanced", attribute: name }]),
    ["least-spurious", "to the least spurious", { to: "least-spurious" }]];
  const select = el("select", { "aria-label": "Refit", onchange: () => {
    const [, , refit] = choices[select.selectedIndex];
    const edits = state.edits.filter((edit) => edit.edit !== "refit");
    if (refit) {
      const pairs = refit.to === "least-spurious" ? { pairs: misleading(edits) } : {};
      insert(edits, { edit: "refit", ...refit, ...pairs });
    }
    change({ ...state, edits });
  } }, choices.map(([value, text]) => el("option", { value }, text)));
  return follow(el("label", { class: "choice" }, "Refit", select), () => {
    const refit = state.edits.find((edit) => edit.edit === "refit");
    select.selectedIndex = refit ? Math.max(0, choices.findIndex(([, , one]) => one && one.to === refit.to && one.attribute === refit.attribute)) : 0;
  });
}

const misleading = (edits) => edits.filter((edit) => (edit.edit === "off" || edit.edit === "cap") && known(edit.feature))
  .map((edit) => (known(edit.class) ? `${edit.feature}:${edit.class}` : String(edit.feature)));

// A line that goes away by itself, read out at once.
function say(...content) {
  document.querySelector(".toast")?.remove();
  const node = el("p", { class: "toast", role: "status" }, content);
  document.body.append(node);
  setTimeout(() => node.remove(), 6000);
}
