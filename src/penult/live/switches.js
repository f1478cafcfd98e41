// Switches of a feature, for a class or for all: off, capped, weighted.

// c: null for all classes. facts: {weight} of the pair in the network, where it is known.
function switches(j, c, facts) {
  const whose = c === null ? "for all classes" : `for ${className(c)}`;
  const drawer = el("div", { class: "drawer" });
  let open = null;
  const has = (kind) => editsOf(j, c).find((edit) => edit.edit === kind);
  const pull = (kind, make) => {
    open = open === kind ? null : kind;
    drawer.replaceChildren();
    if (open) make(j, c, drawer, facts);
    update();
  };
  const off = el("button", { type: "button", class: "tool", title: `Feature ${j} counts as if it always stood at its mean, ${whose}`,
    onclick: () => { drawer.replaceChildren(); open = null; putEdit(WEIGHING.concat("cap"), j, c, has("off") ? null : pairEdit("off", j, c)); } }, "Off");
  const cap = el("button", { type: "button", class: "tool", "aria-expanded": "false", title: `What feature ${j} exceeds a bound by counts no further, ${whose}`, onclick: () => pull("cap", capDrawer) }, "Cap");
  const weight = el("button", { type: "button", class: "tool", "aria-expanded": "false", title: c === null ? `What feature ${j} does to all classes, times a factor` : `Another weight of feature ${j} ${whose}`, onclick: () => pull("weight", weightDrawer) }, "Weight");
  const said = el("span", { class: "note switch-said", "aria-live": "polite" });
  const update = () => {
    off.setAttribute("aria-pressed", String(Boolean(has("off"))));
    cap.setAttribute("aria-pressed", String(Boolean(has("cap"))));
    weight.setAttribute("aria-pressed", String(Boolean(has("set") || has("scale"))));
    cap.setAttribute("aria-expanded", String(open === "cap"));
    weight.setAttribute("aria-expanded", String(open === "weight"));
    said.replaceChildren(...saidOf(j, c));
  };
  return follow(el("div", { class: "switches", role: "group", "aria-label": `Feature ${j} ${whose}` },
    el("div", { class: "row" }, off, cap, weight), drawer, said), update);
}

// What the edits make of the pair, those for all classes among them.
function saidOf(j, c) {
  const found = state.edits.filter((edit) => edit.feature === j && (c === null ? !known(edit.class) : !known(edit.class) || isOf(edit, c)));
  const words = found.map((edit) => editText(edit).replace(/^\d+ /, "").replace(/ for .*$/, known(edit.class) || c === null ? "" : " for all"));
  const now = c === null ? null : weightNow(c, j);
  if (now) words.push(`weight ${signed(now[2])} → ${signed(now[3])}`);
  return words.length ? [words.join("; ")] : [];
}

function slider(label, { low, high, value, step, show = number }, moved) {
  const output = el("output", null, show(value));
  const input = el("input", { type: "range", min: low, max: high, step, "aria-label": label });
  input.value = value;
  input.setAttribute("aria-valuetext", show(value));
  input.addEventListener("input", () => {
    const at = Number(input.value);
    output.textContent = show(at);
    input.setAttribute("aria-valuetext", show(at));
    moved(at);
  });
  return { input, output, set: (at) => { input.value = at; output.textContent = show(at); input.setAttribute("aria-valuetext", show(at)); } };
}

const rounded = (value) => Number(value.toPrecision(5));
const withoutButton = (label, call) => el("button", { type: "button", class: "tool", onclick: call }, label);

// A slider over the feature's distribution.
function capDrawer(j, c, drawer) {
  const done = waiting(drawer);
  need([["feature", j]]).then(() => {
    done();
    const detail = item("feature", j);
    const [low, high] = detail.range;
    const own = detail.distribution.find((row) => row.class === c);
    const given = editsOf(j, c).find((edit) => edit.edit === "cap");
    const value = typeof given?.at === "number" ? given.at : own?.mean ?? about().features[j].mean;
    const set = (at) => putEdit(["cap", "off"], j, c, pairEdit("cap", j, c, { at: rounded(at) }), { name: `cap ${j} ${c}` });
    const one = slider(`Cap of feature ${j}`, { low, high, value, step: (high - low) / 400 || 1 }, (at) => { mark(at); set(at); });
    const line = el("i", { class: "at" });
    const mark = (at) => { line.style.left = `${high > low ? 100 * (at - low) / (high - low) : 50}%`; };
    mark(value);
    drawer.replaceChildren(histogram(detail, c, line), el("div", { class: "sliding" }, one.input, one.output),
      el("div", { class: "row" }, withoutButton("No cap", () => putEdit(["cap"], j, c, null))));
    if (!given) set(value);
  }, (error) => { done(); drawer.replaceChildren(failed(error)); });
}

// All samples as one histogram, those of the class before it; heights by the root.
function histogram(detail, c, line) {
  const bins = detail.distribution[0]?.counts.length || 0;
  const all = Array.from({ length: bins }, (_, i) => detail.distribution.reduce((sum, row) => sum + row.counts[i], 0));
  const own = detail.distribution.find((row) => row.class === c && c !== null)?.counts;
  const area = (counts) => {
    const tallest = Math.sqrt(largestOf(all));
    return `M0 30${counts.map((n, i) => `L${100 * i / bins} ${30 - 28 * Math.sqrt(n) / tallest}L${100 * (i + 1) / bins} ${30 - 28 * Math.sqrt(n) / tallest}`).join("")}L100 30Z`;
  };
  return el("div", { class: "histogram", "aria-hidden": "true" }, svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none" },
    svg("path", { class: "ridge-area rest", d: area(all) }), own && svg("path", { class: "ridge-area", d: area(own) })), line);
}

// The weight itself; a factor of it for all classes, and where the page does not know the weight.
function weightDrawer(j, c, drawer, facts) {
  const { head } = about();
  const own = state.head === "dense" ? facts?.weight : head && same(state.head, { select: head.select, k: head.k }) ? facts?.sparse_weight : null;
  const few = about().classes.length === 2 && !isMultiLabel(); // there the page has the difference of two weights
  const factor = c === null || few || !known(own);
  const kind = factor ? "scale" : "set";
  const given = editsOf(j, c).find((edit) => edit.edit === kind);
  const reach = factor ? 2 : 2 * Math.abs(own) || 1;
  const value = given ? given.value : factor ? 1 : own;
  const one = slider(factor ? `Factor of feature ${j}` : `Weight of feature ${j}`, { low: factor ? -1 : -reach, high: reach, value, step: reach / 200, show: factor ? (at) => `× ${short(at)}` : signed },
    (at) => putEdit(WEIGHING, j, c, pairEdit(kind, j, c, { value: rounded(at) }), { name: `${kind} ${j} ${c}` }));
  drawer.replaceChildren(el("div", { class: "sliding" }, one.input, one.output),
    el("div", { class: "row" }, withoutButton("As it was", () => { one.set(factor ? 1 : own); putEdit(WEIGHING, j, c, null); })));
}

// On the page of a feature: for all classes, and for each that it moves.
function featureSwitches(j, detail) {
  const rows = new Map([...detail.network, ...detail.readers].map((row) => [row.class, row]).reverse());
  const sparse = new Map(detail.readers.map((row) => [row.class, row.weight]));
  const dense = new Map(detail.network.map((row) => [row.class, row.weight]));
  const facts = (c) => ({ weight: dense.get(c), sparse_weight: sparse.get(c) });
  return el("section", null, heading("Switch it", "For all classes, or for one of those that it moves most. What happens stands below at once."),
    el("div", { class: "switch-list" }, el("div", null, el("h3", null, "All classes"), switches(j, null)),
      [...rows.keys()].sort((a, b) => Math.abs(dense.get(b) || 0) - Math.abs(dense.get(a) || 0)).slice(0, 12).map((c) => el("div", null, el("h3", null, classLink(c)), switches(j, c, facts(c))))));
}
