// Suspects as a work list: one key for each verdict, and on to the next.

const VERDICT_KEYS = { core: "c", shortcut: "s", "label noise": "n", unsure: "u" };
let judging = null; // {row, index} of the suspect on the page

function takeVerdicts(found) {
  if (!found || same(found, about().verdicts)) return;
  about().verdicts = found;
  refollow();
}

const judgedBy = (row) => known(row.feature) && verdictOf(row.feature, row.class);
const judgeable = () => (bundle("data-suspects")?.pairs || []).map((row, place) => ({ row, place })).filter(({ row }) => known(row.feature));

// "12 of 40 judged", and where to go on.
function workLine() {
  const node = el("p", { class: "work-line", role: "status" });
  return follow(node, () => {
    const all = judgeable();
    const n = all.filter(({ row }) => judgedBy(row)).length;
    const first = all.find(({ row }) => !judgedBy(row));
    node.hidden = !all.length;
    node.replaceChildren();
    append(node, [bar(n / all.length, "own", ""), el("b", null, `${count(n)} of ${count(all.length)} judged`),
      first ? el("a", { class: "tool", href: `#suspect/${first.place}` }, "Judge the next") : el("span", { class: "note" }, "Nothing is left to judge.")]);
  });
}

function judge(row, index) {
  judging = { row, index };
  const note = el("input", { type: "text", placeholder: "Why (optional)", "aria-label": "Why", maxlength: 500 });
  const error = el("div");
  const buttons = Object.keys(VERDICT_KEYS).map((kind) => el("button", { type: "button", class: "tool", "data-verdict": kind, "aria-keyshortcuts": VERDICT_KEYS[kind], onclick: () => give(kind) },
    capital(kind), el("kbd", { "aria-hidden": "true" }, VERDICT_KEYS[kind])));
  let giving = false;
  const give = async (kind) => {
    if (giving) return; // one that is on its way is not given twice
    giving = true;
    for (const button of buttons) button.disabled = true;
    try {
      const found = await ask("api/verdict", { body: { feature: row.feature, class: row.class, verdict: kind, note: note.value.trim() } });
      takeVerdicts(found.verdicts);
      onward(index, `${capital(kind)}: feature ${row.feature} for ${className(row.class)}.`);
    } catch (problem_) {
      error.replaceChildren(failed(problem_));
    }
    for (const button of buttons) button.disabled = false;
    giving = false;
  };
  judging.give = give;
  const node = el("div", { class: "row verdicts-row" }, buttons, note);
  follow(node, () => {
    const said = verdictOf(row.feature, row.class);
    for (const button of buttons) button.setAttribute("aria-pressed", String(said?.verdict === button.dataset.verdict && said.class === row.class));
  });
  if (about().live.writable === false) return [el("p", { class: "note" }, "This run cannot be written to, so no verdict can be kept."), switches(row.feature, row.class, {})];
  return [workLine(), node, error,
    el("h2", null, "Without it"), el("p", { class: "note" }, "What happens is said below at once."), switches(row.feature, row.class, {})];
}

// To the next that nobody has judged, after this one first.
function onward(index, text) {
  const left = judgeable().filter(({ row }) => !judgedBy(row));
  const to = left.find(({ place }) => place > index) || left[0];
  say(text);
  if (to) go(`suspect/${to.place}`);
  else go("suspects");
}

function noSuspects() {
  const holder = el("div");
  const look = async () => {
    const controller = new AbortController();
    const line = progressLine("Looking for shortcuts", controller);
    holder.replaceChildren(line.node);
    try {
      await ask("api/find-suspects", { body: {}, progress: line.progress, signal: controller.signal });
      await loadSuspects();
      if (["suspects", "suspect"].includes(parts(current)[0])) show("suspects");
    } catch (error) {
      holder.replaceChildren(failed(cancelled(error) ? { message: "Cancelled." } : error), start());
    }
  };
  const start = () => el("button", { type: "button", class: "tool", onclick: look }, "Look for shortcuts");
  holder.append(start());
  return { title: "Suspects", content: [el("h1", { tabindex: "-1" }, "Suspects"),
    el("p", { class: "empty" }, `Nobody has looked for shortcuts in this run yet. The search reads the features of all ${things()}; it takes seconds to minutes, and what it finds is kept in the run.`), holder] };
}
