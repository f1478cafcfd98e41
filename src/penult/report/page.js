// The page itself: routes, search, keys, theme; where history or storage is forbidden it goes without.

const root = document.documentElement;
const other = document.getElementById("other-view");
const scrolled = new Map();
let current = null;
let ready = document.readyState !== "loading";

// What an address calls a class: its number, or its name where that is no number of a class.
function classNumber(text) {
  const { classes } = about();
  if (!text) return null;
  if (/^\d+$/.test(text) && Number(text) < classes.length) return Number(text);
  let name = text;
  try { name = decodeURIComponent(text); } catch { /* no encoding: the name itself */ }
  const found = classes.findIndex((row) => row.name === name);
  return found < 0 ? null : found;
}

// The route of the address; in the app a state may stand behind it: class/3!{"edits":…}.
function hashRoute() {
  try { return location.hash.slice(1).replace(/!%7B.*$/, ""); } catch { return ""; }
}

const address = (route) => `#${route}${live?.suffix() ?? ""}`;

// A route and its argument: the name of a class may hold slashes.
function parts(route) {
  const at = route.search(/[/?]/);
  return at < 0 ? [route, undefined] : [route.slice(0, at), route.slice(at + 1)];
}

const isWritten = (name) => name === "summary" || name === "guide"; // in the page itself

function noView(route) {
  let name = route;
  try { name = decodeURIComponent(route); } catch { /* no encoding */ }
  return { title: "No such view", content: [el("h1", { tabindex: "-1" }, "No such view"),
    el("p", { class: "empty" }, "This page has no view ", el("bdi", null, `#${name.slice(0, 80)}`), ". ", el("a", { href: "#summary" }, "To the summary"))] };
}

function show(route, { focus = true, scroll = 0 } = {}) {
  const [name, argument] = parts(route);
  if (current) scrolled.set(current, scrollY);
  current = route;
  if (!isWritten(name) && !ready) { root.dataset.view = "other"; return; } // the bundles are still on their way; shown again when they are there
  const loading = live?.prepare(Object.hasOwn(VIEWS, name) ? name : "", argument);
  if (!loading) draw(route, { focus, scroll });
  else loading.then((loaded) => loaded && draw(route, { focus, scroll }));
}

function draw(route, { focus, scroll }) {
  const [name, argument] = parts(route);
  root.dataset.view = isWritten(name) ? name : "other";
  let title = name === "guide" ? "How to read this page" : "";
  beforePrint = null;
  if (!isWritten(name)) {
    const view = Object.hasOwn(VIEWS, name) ? VIEWS[name](argument) : noView(route);
    title = view.title;
    other.replaceChildren();
    append(other, view.content);
  }
  const first = document.querySelector("#summary-view h1").textContent;
  document.title = title ? `${title} · ${first}` : first;
  for (const link of document.querySelectorAll(".views a")) {
    const here = link.getAttribute("href") === `#${TABS[name] || name}`;
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    // On a narrow screen the row of views scrolls.
    if (here) link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.offsetLeft - 40;
  }
  if (focus) visible().querySelector("h1")?.focus({ preventScroll: true });
  scrollTo({ top: scroll, behavior: "instant" });
}

const visible = () => (root.dataset.view === "other" ? other : document.getElementById(`${root.dataset.view}-view`));

// The view has changed what it shows: its address follows, without a step back to the old one.
function readdress(route) {
  keepAddress(route);
  current = route;
}

// Entries that this page made are marked: another is an address that a person gave.
function keepAddress(route) {
  try { history.replaceState({ visited: true }, "", address(route)); } catch { /* no address to change */ }
}

function go(route) {
  // Pushed and shown by hand: in a srcdoc frame a link to "#x" would load the page around it.
  try { history.pushState({ visited: true }, "", address(route)); } catch { /* no address to change */ }
  show(route);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  const href = link?.getAttribute("href");
  if (!href?.startsWith("#") || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (link.hasAttribute("data-skip")) visible().querySelector("h1")?.focus();
  else go(href.slice(1));
});

addEventListener("popstate", () => {
  const route = hashRoute() || root.dataset.start;
  live?.returned();
  if (route !== current) show(route, { scroll: scrolled.get(route) || 0 });
});
addEventListener("beforeprint", () => beforePrint && beforePrint());

// Search

const search = document.getElementById("search");
const found = document.getElementById("found");
const MOST_FOUND = 12;
let names = null;

function candidates(text) {
  const query = text.trim().toLowerCase();
  if (!query) return [];
  names ||= classOrder().map((c) => [c, about().classes[c].name.toLowerCase()]);
  const asked = query.replace(/^(feature|class|f|c)\s*(?=\d+$)/, "");
  const index = /^\d+$/.test(asked) ? Number(asked) : -1;
  const results = [];
  const add = (route, kind, name) => results.push({ route, kind, name });
  if (index >= 0 && index < about().features.length && !/^c/.test(query)) add(`feature/${index}`, "feature", String(index));
  if (index >= 0 && index < names.length && !/^f/.test(query)) add(`class/${index}`, `class ${index}`, className(index));
  for (const fits of [(name) => name.startsWith(query), (name) => name.indexOf(query) > 0]) {
    for (const [c, name] of names) {
      if (results.length >= MOST_FOUND) break;
      if (fits(name) && c !== index) add(`class/${c}`, `class ${c}`, className(c));
    }
  }
  return results.slice(0, MOST_FOUND);
}

function offer() {
  const results = ready ? candidates(search.value) : [];
  found.replaceChildren(...results.map((result, at) => el("li", { role: "option", id: `found-${at}`, "aria-selected": String(at === 0), "data-route": result.route },
    el("bdi", null, result.name), el("span", { class: "note" }, result.kind))));
  if (search.value.trim() && !results.length) found.append(el("li", { class: "none" }, "Nothing found"));
  found.hidden = !search.value.trim();
  search.setAttribute("aria-expanded", String(!found.hidden));
  point(0);
}

function point(at) {
  const options = [...found.querySelectorAll("[role=option]")];
  const chosen = options[Math.max(0, Math.min(at, options.length - 1))];
  for (const option of options) option.setAttribute("aria-selected", String(option === chosen));
  if (chosen) search.setAttribute("aria-activedescendant", chosen.id); else search.removeAttribute("aria-activedescendant");
  chosen?.scrollIntoView({ block: "nearest" });
}

function closeSearch() {
  search.value = "";
  offer();
  search.blur();
}

function openFound(option) {
  const { route } = option.dataset;
  closeSearch();
  go(route);
}

search.addEventListener("input", offer);
search.addEventListener("blur", () => { found.hidden = true; search.setAttribute("aria-expanded", "false"); });
search.addEventListener("focus", () => search.value && offer());
found.addEventListener("mousedown", (event) => {
  event.preventDefault(); // or the field would lose the focus, and the list be gone before the click
  const option = event.target.closest("[role=option]");
  if (option) openFound(option);
});
search.addEventListener("keydown", (event) => {
  const options = [...found.querySelectorAll("[role=option]")];
  const at = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
  if (event.key === "ArrowDown") point(at + 1);
  else if (event.key === "ArrowUp") point(at - 1);
  else if (event.key === "Enter" && options[at]) openFound(options[at]);
  else if (event.key === "Escape") closeSearch();
  else return;
  event.preventDefault();
});

// Switches and keys

const mapsButton = document.getElementById("maps");

function toggleMaps() {
  const off = root.classList.toggle("maps-off");
  mapsButton.setAttribute("aria-pressed", String(!off));
}

function toggleTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("penult-theme", root.dataset.theme); } catch { /* kept for this visit */ }
}

function showKeys() {
  const dialog = el("dialog", { class: "keys-dialog", "aria-labelledby": "keys-title" }, el("h2", { id: "keys-title" }, "Keys"),
    document.querySelector("[data-keys]").cloneNode(true),
    el("button", { type: "button", class: "tool", onclick: () => dialog.close() }, "Close"));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

function step(by) {
  const [name, argument] = parts(current);
  const link = TABS[name] && other.querySelector(`.pager a[rel=${by < 0 ? "prev" : "next"}]`);
  if (link && argument !== undefined) go(link.getAttribute("href").slice(1));
}

const KEYS = {
  "/": () => search.focus(),
  "?": showKeys,
  h: toggleMaps,
  t: toggleTheme,
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  j: () => step(1),
  k: () => step(-1),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  // A region that scrolls sideways keeps its arrows.
  const scrolls = event.key.startsWith("Arrow") && event.target.closest?.(".scroll");
  if (typing || scrolls || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key](event);
});

mapsButton.addEventListener("click", toggleMaps);
document.getElementById("theme").addEventListener("click", toggleTheme);
document.getElementById("keys").addEventListener("click", showKeys);

// Values of the curve's points, on pointing and on focus

const tip = document.querySelector("[data-tip-box]");
for (const kind of tip ? ["mouseover", "focusin"] : []) {
  document.getElementById("summary-view").addEventListener(kind, (event) => {
    const at = event.target.closest("[data-tip]");
    tip.textContent = at ? at.dataset.tip : "";
    if (!at) return;
    const spot = at.querySelector(".dot").getBoundingClientRect();
    const frame = tip.parentElement.getBoundingClientRect();
    const half = tip.offsetWidth / 2;
    const x = spot.left + spot.width / 2 - frame.left;
    tip.style.left = `${Math.max(half, Math.min(frame.width - half, x))}px`;
    tip.style.top = `${spot.top - frame.top - 10}px`;
  });
}

// Classes at a glance, on the summary: drawn last, into room that is kept for them

const GLANCED = 10;
const MOST_TRAITS = 4;

// hidden: how many features of the class stand behind this one and are not shown.
function cardNumber(trait, hidden) {
  const number = trait.weight < 0
    ? el("span", { class: "neg", title: byAbsence(trait) ? ABSENCE : "it speaks against this class" }, `\u2212${trait.feature}`)
    : el("span", { class: trait.kept ? "kept" : null, title: trait.kept ? KEPT : null }, String(trait.feature));
  return el("small", null, number, hidden > 0 && el("span", { class: "more", title: plural(hidden, "more feature", "more features") }, ` +${hidden}`));
}

async function glance() {
  const cards = document.querySelector("[data-cards]");
  if (!cards) return;
  await live?.need(classOrder().slice(0, GLANCED).map((c) => ["class", c]));
  const seen = (trait) => trait.own.length && item("image", trait.own[0][0])?.src;
  const shown = classOrder().slice(0, 100).filter((c) => item("class", c)?.features.some(seen)).slice(0, GLANCED);
  if (!shown.length) { cards.parentElement.hidden = true; return; }
  cards.replaceChildren(...shown.map((c) => {
    const row = about().classes[c];
    // A feature of negative weight is strongest on images of other things: it comes last.
    const all = item("class", c).features;
    const traits = [...all.filter((trait) => trait.weight >= 0), ...all.filter((trait) => trait.weight < 0)].filter(seen).slice(0, MOST_TRAITS);
    const hidden = all.length - traits.length;
    return el("a", { class: "card", href: `#class/${c}`, title: row.name }, el("span", { class: "card-name" }, el("bdi", null, row.name), el("span", { class: "n", title: `${things()} that the network gets right` }, percent(row.dense))),
      el("span", { class: "card-shots" }, traits.map((trait, place) => el("span", null, picture(trait.own[0][0], trait.own[0][2]), cardNumber(trait, place === traits.length - 1 ? hidden : 0)))));
  }));
  const all = classOrder().filter(hasImages).length || about().classes.length;
  if (all > shown.length) cards.after(el("p", { class: "note all-of" }, el("a", { href: "#classes" }, `All ${count(all)} classes${all < about().classes.length ? ` with ${things()}` : ""}`)));
}

function begin() {
  ready = true;
  if (root.dataset.view === "other") show(current, { focus: false });
  const later = window.requestIdleCallback || ((call) => setTimeout(call, 1));
  later(glance);
}

// Once all scripts have run: the app's stand behind this one.
queueMicrotask(() => {
  live?.start();
  show(hashRoute() || root.dataset.start, { focus: false });
  if (ready) begin(); else document.addEventListener("DOMContentLoaded", begin);
});
