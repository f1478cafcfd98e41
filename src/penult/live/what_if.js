// What if: one sample, its features as sliders, and what the head then says.

const TOLD = 40; // milliseconds between questions while a slider moves

// A source says what is asked about: {part, sample} of the run, or {upload} of one's own.
function whatIf(source, first, aside) {
  const values = {}; // features that were moved: number → value
  const rows = new Map();
  const calls = el("div", { class: "ledger named calls", "aria-live": "polite" });
  const reason = el("div", { class: "reason-of" });
  const gap = el("p", { class: "note" });
  const totals = el("div", { class: "sum" });
  const error = el("div");
  const reset = el("button", { type: "button", class: "tool", disabled: true, onclick: () => {
    for (const j of Object.keys(values)) delete values[j];
    for (const row of rows.values()) row.back();
    tell();
  } }, "As it was");
  const terms = el("div", { class: "sum moving" }, first.terms.map(([j, value, , , low, high]) => {
    const one = slider(`Feature ${j}`, { low: Math.min(low, value), high: Math.max(high, value), value, step: (high - low) / 400 || 1 }, (at) => { values[j] = rounded(at); tell(true); });
    const bars = el("span");
    const sum = el("span", { class: "n" });
    const node = el("div", { class: "line" }, el("span", { class: "term" }, featureLink(j)), el("span", { class: "sliding" }, one.input, one.output), bars, sum);
    rows.set(j, { node, back: () => one.set(value), draw: (contribution, scale, needed) => {
      bars.replaceChildren(diverging(contribution, scale, ""));
      sum.textContent = signed(contribution); // a dash where it is too small to be told by itself
      node.classList.toggle("needed", needed);
    } });
    return node;
  }));
  const draw = (found) => {
    error.replaceChildren();
    const rest = [["all other features", found.rest], ["bias", found.bias], ["together", found.total]];
    const scale = largestOf([...found.terms.map((term) => term[3]), ...rest.map(([, value]) => value)]);
    const needed = new Set(found.reason?.features || []);
    const told = new Map(found.terms.map((term) => [term[0], term[3]]));
    for (const [j, row] of rows) row.draw(told.get(j), scale, needed.has(j));
    totals.replaceChildren(...rest.map(([name, value], i) => el("div", { class: i === 2 ? "line total" : "line other" }, el("span", { class: "term" }, name), diverging(value, scale, ""), el("span", { class: "n" }, signed(value)))));
    gap.replaceChildren();
    append(gap, ["What moves the logit of ", classLink(found.of), known(found.against) ? [" above that of ", classLink(found.against)] : null, "; drag a feature to see what would be said."]);
    const most = largestOf(found.classes.map(([, , p]) => p));
    calls.replaceChildren();
    append(calls, found.classes.map(([c, logit, p]) => [
      el("span", { class: isCalled(found.predicted, c) ? "who called" : "who" }, classLink(c), known(found.label) && isCalled(found.label, c) ? el("span", { class: "mark" }, "label") : null),
      bar(p / most, isCalled(found.predicted, c) ? "own" : "", ""), el("span", { class: "n" }, percent(p)), el("span", { class: "n note" }, signed(logit))]));
    reason.replaceChildren();
    append(reason, reasonOf(found));
    reset.disabled = !Object.keys(values).length;
  };
  let busy = false;
  let again = false;
  const { signal } = leaving;
  const tell = async (sliding = false) => {
    if (busy) { again = true; return; }
    busy = true;
    again = false;
    if (sliding) await new Promise((resolve) => setTimeout(resolve, TOLD));
    try {
      const found = await ask("api/what-if", { body: { state, ...source, values }, signal });
      draw(found.decision);
    } catch (problem_) {
      if (!cancelled(problem_)) error.replaceChildren(failed(problem_));
    }
    busy = false;
    if (again && !signal.aborted) tell(sliding);
  };
  draw(first);
  let told = state;
  const section = el("section", { class: "reason" }, el("h2", null, "What decides it"), gap, terms, totals, el("div", { class: "row" }, reset), error);
  follow(section, () => { if (told !== state) { told = state; tell(); } });
  return el("div", { class: "inquest what-if" }, el("aside", null, aside), section,
    el("section", { class: "reason" }, el("h2", null, "What is said"), calls, el("h3", null, "Sufficient reason"), reason));
}

function reasonOf(found) {
  if (!found.reason) return [el("p", { class: "note" }, "Not told of this decision.")];
  const { features, n_read: n, exact } = found.reason;
  return [
    el("p", { class: "note" }, `${features.length === 1 ? "This feature settles" : `These ${count(features.length)} features settle`} the decision, whatever the other${known(n) ? ` ${count(Math.max(0, n - features.length))} that are read` : "s"} were${exact ? "; no smaller set does" : ""}.`),
    el("p", { class: "some" }, features.slice(0, 60).map(featureLink), features.length > 60 && el("span", { class: "more" }, `+${count(features.length - 60)}`))];
}

// #sample/eval/12
function sampleView(argument) {
  const [part, text] = (argument || "").split("/");
  const n = Number(text);
  const total = about().live.n[part];
  if (!Number.isInteger(total) || !/^\d+$/.test(text || "") || n >= total) return missing(`No such ${thing()}`, `The ${things()} of each part have numbers from 0: eval/0, train/0.`);
  const holder = el("div");
  const title = el("h1", { tabindex: "-1" }, `${capital(thing())} ${count(n)}`);
  const done = waiting(holder);
  const asked = isPlain(state) ? "" : `?state=${encodeURIComponent(JSON.stringify(state))}`;
  ask(`api/sample/${part}/${n}${asked}`, { signal: leaving.signal }).then((found) => {
    done();
    takeImages({ [found.image_number]: found.image });
    title.replaceChildren(el("bdi", null, found.image.id));
    holder.replaceChildren(whatIf({ part, sample: n }, found.decision, sampleFacts(found)));
  }, (error) => { done(); if (!cancelled(error)) holder.replaceChildren(failed(error)); });
  const step = (to, label, glyph, rel) => (to < 0 || to >= total ? el("span", { class: "tool off", "aria-hidden": "true" }, el("span", { class: "glyph" }, glyph))
    : el("a", { class: "tool", href: `#sample/${part}/${to}`, rel, "aria-label": label, title: label }, el("span", { class: "glyph", "aria-hidden": "true" }, glyph)));
  return {
    title: `${capital(thing())} ${n}`,
    content: [el("div", { class: "top" }, el("div", null, el("p", { class: "eyebrow" }, el("span", null, capital(thing())), el("span", null, `${part === "eval" ? "evaluation" : "analysis"}, number ${count(n)}`)), title),
      el("div", { class: "pager" }, step(n - 1, `Previous ${thing()}`, "←", "prev"), step(n + 1, `Next ${thing()}`, "→", "next"))), holder],
  };
}

function sampleFacts({ image, image_number: index, decision }) {
  const large = el("div", { class: "large" }, picture(index, null, image.id, 640));
  const said = known(image.predicted) ? image.predicted : decision.predicted;
  return [large, el("dl", { class: "facts" }, known(image.class) && fact(isMultiLabel() ? "Labels" : "Label", calledLinks(image.class)), known(said) && fact("The network says", calledLinks(said))),
    about().live.maps && decision.terms.length ? mapChoice(large, index, decision.terms) : null];
}

// Which feature's map lies on the picture.
function mapChoice(large, index, terms) {
  const select = el("select", { onchange: () => {
    const view = { index, feature: Number(select.value), map: null };
    large.replaceChildren(picture(index, null, null, 640));
    if (select.value) mapLater(large, [view]);
  } }, el("option", { value: "" }, "none"), terms.slice(0, 20).map(([j]) => el("option", { value: j }, `feature ${j}`)));
  return el("label", { class: "choice map-choice" }, "Heat map", select);
}

// An image of one's own, dropped anywhere on the page

const LARGEST = 16 * 2 ** 20;
let own = null; // what the server said of it
let chooser = null;

const canTry = () => about().live.images && about().live.maps;

const cannotTry = () => `This run has no network that could look at ${aThing()}.`;

function chooseFile() {
  if (!canTry()) { say(cannotTry()); return; }
  // It stays in the page: one that nothing holds may be gone before a file is chosen.
  chooser ||= el("input", { type: "file", accept: "image/*", hidden: true, onchange: () => chooser.files[0] && upload(chooser.files[0]) });
  document.body.append(chooser);
  chooser.value = ""; // or the same file once more would be no change
  chooser.click();
}

async function upload(file) {
  if (file.name.endsWith(".json")) {
    loadRecipe(file).then((text) => say(text), (error) => say(error.message));
    return;
  }
  if (!canTry()) { say(cannotTry()); return; }
  if (!file.type.startsWith("image/")) { say("Expected an image or a recipe, found ", el("bdi", null, file.name || file.type || "something else"), "."); return; }
  if (file.size > LARGEST) { say(`The file is larger than ${LARGEST / 2 ** 20} MB.`); return; }
  const controller = new AbortController();
  const line = progressLine("Reading the file", controller);
  dockWaits(line.node);
  try {
    const found = await ask(`api/upload?${new URLSearchParams({ name: file.name, state: JSON.stringify(state) })}`, { body: file, signal: controller.signal, progress: line.progress });
    takeImages(found.images);
    own = { ...found, name: file.name || found.name };
    if (current === "upload") show("upload"); else go("upload");
  } catch (error) {
    say(cancelled(error) ? "Cancelled." : error.message);
  } finally {
    dockWaits(null);
  }
}

function uploadView() {
  if (!own) {
    return { title: `Your own ${thing()}`, content: [el("h1", { tabindex: "-1" }, `Your own ${thing()}`),
      el("p", { class: "empty" }, canTry() ? `Drop ${aThing()} anywhere on this page, or choose one. It stays on this machine.` : cannotTry()),
      canTry() && el("button", { type: "button", class: "tool", onclick: chooseFile }, "Choose a file")] };
  }
  const large = el("div", { class: "large" });
  const lay = (j) => {
    const frame = el("span", { class: "frame" }, el("img", { src: own.src, alt: own.name || `your own ${thing()}` }));
    if (own.maps?.[j]) overlay(frame, own.maps[j], own.grid);
    large.replaceChildren(frame);
  };
  const withMaps = Object.keys(own.maps || {});
  const select = el("select", { onchange: () => lay(select.value) }, el("option", { value: "" }, "none"), withMaps.map((j) => el("option", { value: j }, `feature ${j}`)));
  lay(withMaps[0]);
  select.value = withMaps[0] ?? "";
  const views = own.nearest.map(([index, value]) => ({ index, value, map: null, named: "Distance" }));
  return { title: own.name, content: [
    el("div", { class: "top" }, el("div", null, el("p", { class: "eyebrow" }, el("span", null, `Your own ${thing()}`)), el("h1", { tabindex: "-1" }, el("bdi", null, own.name))),
      el("button", { type: "button", class: "tool", onclick: chooseFile }, "Another one")),
    whatIf({ upload: own.upload }, own.decision, [large, withMaps.length ? el("label", { class: "choice map-choice" }, "Heat map", select) : null]),
    el("section", null, heading(`The nearest ${things()} of the run`, "By the features that count for what is said."),
      el("div", { class: "cases" }, views.map((view, place) => sampleCard(view, () => openViewer(views, place)))))] };
}

function watchDrops() {
  const shade = el("div", { class: "drop-shade", "aria-hidden": "true" }, el("p", null, `Drop ${aThing()}, or a recipe`));
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; document.body.append(shade); } });
  addEventListener("dragleave", (event) => { if (files(event) && --depth <= 0) { depth = 0; shade.remove(); } });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    shade.remove();
    const [file] = event.dataTransfer.files;
    if (file) upload(file);
  });
}
