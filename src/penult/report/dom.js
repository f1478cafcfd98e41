// Data, numbers and elements: what every view is made from.

const parsed = new Map();

// What the app adds to the page: it loads parts and takes edits. A report is only read: null.
let live = null;

function bundle(id) {
  if (!parsed.has(id)) {
    const element = document.getElementById(id);
    parsed.set(id, element ? JSON.parse(element.textContent) : null);
  }
  return parsed.get(id);
}

const about = () => bundle("data-document");

// The details of class, feature, image or mistake number `index`; null where the page has none.
function item(kind, index) {
  const size = about().chunks[kind];
  const chunk = bundle(`data-${kind}-${Math.floor(index / size)}`);
  return (chunk && chunk[index % size]) ?? null;
}

// el("a", {href: "#x", class: "y"}, "text", node): text never becomes markup.
function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(4)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  append(element, children);
  return element;
}

const known = (value) => value !== null && value !== undefined;
const minus = (text) => text.replace("-", "\u2212");
const percent = (value) => (known(value) ? `${(100 * value).toFixed(2)}%` : "–");
// A share needs no hundredths: 28%.
const whole = (value) => (!known(value) ? "–" : value > 0 && value < 0.005 ? "<1%" : `${Math.round(100 * value)}%`);
const count = (value) => (known(value) ? value.toLocaleString("en-US") : "–");

function points(value) {
  if (!known(value)) return "–";
  const text = (100 * value).toFixed(2);
  if (Number(text) === 0) return "0.00";
  return value > 0 ? `+${text}` : minus(text);
}

function number(value) {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-5) return minus(value.toExponential(1));
  if (size < 1e-2) return minus(String(Number(value.toPrecision(2))));
  if (size >= 100) return minus(Math.round(value).toLocaleString("en-US"));
  return minus(value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3));
}

// Without the zeros that a column needs: 3, 2.5.
const short = (value) => (known(value) ? minus(String(Number(value.toPrecision(3)))) : "–");

const signed = (value) => (known(value) && value > 0 ? `+${number(value)}` : number(value));

const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

// Of multi-label data the numbers after those of the classes mean that a class is not given.
const className = (c) => {
  const { classes } = about();
  return c >= classes.length && isMultiLabel() ? `not ${className(c - classes.length)}` : classes[c]?.name ?? "–";
};

// What the samples are called: images, or texts.
const things = () => about().about.samples;
const thing = () => things().slice(0, -1);
const aThing = () => (thing() === "image" ? "an image" : `a ${thing()}`);
const theSubject = () => (thing() === "image" ? "the object" : "what the text is about");
const capital = (word) => word[0].toUpperCase() + word.slice(1);

const isMultiLabel = () => about().about.multi_label;

// One class, or all that a sample has, as names or as links.
const calledName = (called) => (Array.isArray(called) ? called.map(className).join(", ") || "none of the classes" : className(called));
const calledLinks = (called) => (Array.isArray(called)
  ? (called.length ? called.map((c, i) => [i ? ", " : "", classLink(c)]) : "none of the classes") : classLink(called));
const isCalled = (called, c) => (Array.isArray(called) ? called.includes(c) : called === c);

function classLink(c) {
  if (!known(c)) return el("span", { class: "nothing" }, "–");
  const name = className(c);
  return el("a", { href: `#class/${isMultiLabel() ? c % about().classes.length : c}`, title: name }, el("bdi", null, name));
}

// Of multi-label data the mistakes of a class are those on which it is missed and those to which it is falsely given.
const isMistakeOf = (row, label) => (isMultiLabel() ? row.label % about().classes.length === label : row.label === label);

// To the mistakes with that label; null where the page shows none.
function mistakesLink(label, text) {
  const shown = about().mistakes.rows.some((row) => isMistakeOf(row, label));
  return shown ? el("a", { href: `#mistakes/${label}` }, text) : null;
}

const takenFor = () => (isMultiLabel() ? "called" : "taken for");

const featureLink = (j) => el("a", { href: `#feature/${j}`, class: "feature" }, String(j));

// Whether a sparse head is explained beside the network's own.
const hasSparse = () => Boolean(about().head);

// A feature of a class, marked where the sparse head keeps it.
const KEPT = "kept by the sparse head";
const keptLink = (j, kept) => el("a", { href: `#feature/${j}`, class: kept ? "feature kept" : "feature", title: kept ? KEPT : null }, String(j));

// Classes in the order of all lists: those with images first.
let inOrder = null;
function classOrder() {
  return inOrder ||= about().classes.map((row, c) => c)
    .sort((a, b) => Number(hasImages(b)) - Number(hasImages(a)) || a - b);
}
const hasImages = (c) => about().classes[c].n_samples + about().classes[c].n_eval > 0;

// A drawing that is read out as its label; without one, the number beside it is enough.
const spoken = (label) => (label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" });

// A bar from 0 to `fraction` of its track.
function bar(fraction, kind, label) {
  const width = `${100 * Math.max(0, Math.min(1, fraction || 0))}%`;
  return el("span", { class: `track-bar ${kind || ""}`, ...spoken(label) },
    el("i", { style: { width } }));
}

// A bar to the right of the middle for positive values, to the left for negative ones.
function diverging(value, largest, label) {
  const part = 50 * Math.min(1, Math.abs(value || 0) / (largest || 1));
  const left = value < 0 ? 50 - part : 50;
  return el("span", { class: "diverging", ...spoken(label) },
    el("i", { class: value < 0 ? "neg" : "pos", style: { left: `${left}%`, width: `${part}%` } }));
}

// Two accuracies on one axis from `low` to 1: where the dense head stands, and where the sparse one.
function dumbbell(dense, sparse, low) {
  if (!known(dense) || !known(sparse)) return null;
  const at = (value) => 100 * (value - low) / ((1 - low) || 1);
  const place = (value) => ({ style: { left: `${at(value)}%` } });
  return el("span", { class: "track", role: "img", "aria-label": `network ${percent(dense)}, sparse head ${percent(sparse)}` },
    el("i", { class: "rod", style: { left: `${at(Math.min(dense, sparse))}%`, width: `${at(Math.max(dense, sparse)) - at(Math.min(dense, sparse))}%` } }),
    el("i", { class: "end dense", ...place(dense) }), el("i", { class: "end sparse", ...place(sparse) }));
}

const largestOf = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value || 0)), 0) || 1;

const heading = (title, text, level) =>
  el("div", { class: "heading" }, el(level || "h2", null, title), text && el("p", null, text));

const fact = (name, ...value) => el("div", null, el("dt", null, name), el("dd", null, value));
