// Views of a comparison: what flips, what each class rests on before and now, suspects new and gone.

const VIEWS = {
  flips: (argument) => flipsView(argument),
  flip: (argument) => flipView(Number(argument)),
  classes: comparedClassesView,
  class: (argument) => comparedClassView(classNumber(argument)),
  evidence: evidenceView,
  suspects: comparedSuspectsView,
};

const TABS = { flip: "flips", class: "classes" };

const SIDE_NAMES = { old: "Before", new: "Now" };
const FLIP_NAMES = { negative: "Right before, wrong now", positive: "Wrong before, right now" };

// A feature of both sides, called as in the text of the comparison.
const featureChip = (row) => el("span", { class: "feature", title: chipTitle(row) }, row.name);
const chipTitle = ({ old, new: now }) => (!known(old) ? `feature ${now} of the new network, which the old one has not`
  : !known(now) ? `feature ${old} of the old network, which the new one has not`
    : old === now ? `feature ${old} of both` : `feature ${old} of the old network, ${now} of the new one`);

const cases = () => bundle("data-cases").map((row, index) => ({ ...row, index }));
const evidenceRow = (c) => bundle("data-evidence").find((row) => row.class === c);

function flipCard(row) {
  const [first] = row.features;
  const map = first && (first.maps.new || first.maps.old);
  const image = first && !first.maps.new && first.maps.old ? row.images.old : row.images.new;
  return el("a", { class: "case", href: `#flip/${row.index}` }, picture(known(image) ? image : -1, map, row.id),
    el("span", { class: "said" }, el("bdi", { title: className(row.label) }, className(row.label)),
      el("span", { class: "as" }, `called ${className(row.before)} → ${className(row.after)}`)),
    el("span", { class: "moved-by" }, row.features.map((one) => el("span", null, featureChip(one), ` ${signed(one.after - one.before)}`))));
}

// The first flips on the summary.
function firstFlips() {
  const holder = document.querySelector("[data-first]");
  const shown = cases().filter((row) => row.kind === "negative").slice(0, 10);
  if (!holder || !shown.length) return;
  holder.hidden = false;
  append(holder, [heading(FLIP_NAMES.negative, flipText(about().flips.negative, shown.length)), el("div", { class: "cases flips" }, shown.map(flipCard)),
    el("p", { class: "note all-of" }, el("a", { href: "#flips" }, "All flips that this page shows"))]);
}

function flipText(found, shown) {
  const left = found.n_samples - shown;
  return `${plural(found.n_samples, thing(), things())}${left > 0 ? `, of which ${count(shown)} are shown` : ""}. Under each stand the features that moved the decision most, by how much each raised or lowered the lead of the right class; the heat map is that of the first.`;
}

function flipsView(kind) {
  const kinds = FLIP_NAMES[kind] ? [kind] : Object.keys(FLIP_NAMES);
  return {
    title: "Flips",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Flips"), el("p", null, `${capital(things())} that only one of the two gets right.`)),
      kinds.map((one) => {
        const shown = cases().filter((row) => row.kind === one);
        if (!about().flips[one].n_samples) return el("section", null, heading(FLIP_NAMES[one], `No ${thing()}.`));
        return el("section", null, heading(FLIP_NAMES[one], flipText(about().flips[one], shown.length)), mapKey(), el("div", { class: "cases flips" }, shown.map(flipCard)));
      }),
      kinds.length === 1 ? el("p", { class: "note" }, el("a", { href: "#flips" }, "All flips")) : null,
    ],
  };
}

function flipView(index) {
  const rows = cases();
  const row = rows[index];
  if (!row) return missing("No such flip", rows.length ? `The flips have the numbers 0 to ${count(rows.length - 1)}.` : "Nothing flips.");
  const [first] = row.features;
  const large = { old: el("div", { class: "large" }), new: el("div", { class: "large" }) };
  const shown = (which, feature) => picture(known(row.images[which]) ? row.images[which] : -1, feature?.maps[which], row.id);
  const show = (feature) => { for (const which of ["old", "new"]) large[which].replaceChildren(shown(which, feature)); };
  const scale = largestOf(row.features.flatMap((one) => [one.before, one.after, one.after - one.before]));
  const call = (said) => el("span", { class: said === row.label ? "verdict right" : "verdict wrong" }, classLink(said), said === row.label ? " right" : " wrong");
  const cell = (value) => (known(value) ? [diverging(value, scale, ""), el("span", { class: "n" }, signed(value))] : [el("span"), el("span", { class: "n" }, "–")]);
  show(first);
  return {
    title: `Flip ${index}: ${className(row.label)}`,
    content: [
      top("flip", index, numbered(rows.length), (to) => className(rows[to].label), [el("span", null, `Flip ${count(index)}`), el("span", null, FLIP_NAMES[row.kind])],
        [el("bdi", null, className(row.label)), el("span", { class: "as" }, " called ", el("bdi", null, className(row.before)), ", now ", el("bdi", null, className(row.after)))]),
      el("div", { class: "inquest two-large" },
        Object.entries(SIDE_NAMES).map(([which, title]) => el("aside", null, el("h2", null, title), large[which], el("dl", { class: "facts" }, fact("It says", call(which === "old" ? row.before : row.after))))),
        el("section", { class: "reason" },
          el("h2", null, "What moved the decision"),
          el("p", { class: "note" }, `What each feature adds to the lead of ${className(row.label)} over ${className(row.kind === "negative" ? row.after : row.before)}.${about().pictures.maps ? " Point at a feature to see its maps." : ""}`),
          mapKey(),
          el("div", { class: "moves" },
            ["Feature", "Before", "Now", "Change"].map((text) => el("span", { class: "note" }, text)),
            row.features.map((one) => [
              el("span", { class: "term", tabindex: "0", onmouseenter: () => show(one), onfocusin: () => show(one) }, ["old", "new"].map((which) => (one.maps[which] ? shown(which, one) : null)), featureChip(one)),
              [known(one.old) ? one.before : null, known(one.new) ? one.after : null, one.after - one.before].map((value) => el("span", { class: "move" }, cell(value)))])),
          el("p", { class: "id" }, el("bdi", null, row.id)))),
    ],
  };
}

function comparedClassesView() {
  const rows = classOrder().map((c) => ({ ...about().classes[c], c, low: about().classes[c].name.toLowerCase() }));
  const least = rows.reduce((low, row) => Math.min(low, row.before ?? 1, row.after ?? 1), 1);
  const columns = [
    { title: "Change in points", value: (r) => (known(r.loss) ? -r.loss : null), kind: "n", hint: "now less before, and its interval with 95 % confidence",
      cell: (r) => (known(r.loss) ? [changed(r.loss), el("span", { class: "note between" }, changedBetween(r.interval))] : "–") },
    { title: "Class", value: (r) => r.low, cell: (r) => classLink(r.c), kind: "who" },
    { title: capital(things()), value: (r) => r.n_samples, cell: (r) => count(r.n_samples), kind: "n", down: true },
    { title: "Before", value: (r) => r.before ?? null, cell: (r) => percent(r.before), kind: "n" },
    { title: "Now", value: (r) => r.after ?? null, kind: "n wide", cell: (r) => [known(r.before) ? beforeAfter(r, least) : null, el("span", { class: "aligned" }, percent(r.after))] },
    { title: "Lost", value: (r) => r.lost ?? null, cell: (r) => count(r.lost), kind: "n", down: true, hint: `${things()} that were right and are wrong now` },
    { title: "Won", value: (r) => r.won ?? null, cell: (r) => count(r.won), kind: "n", down: true, hint: `${things()} that were wrong and are right now` },
    ...(about().comparable ? [{ title: "Evidence changed", value: (r) => r.changed, cell: (r) => whole(r.changed), kind: "n", down: true, hint: "how much of what the class rests on is another than before" }] : []),
    { title: "", value: (r) => (r.sure ? 0 : 1), cell: (r) => (r.sure ? el("span", { class: `mark ${r.loss > 0 ? "suspect" : "kept"}` }, r.loss > 0 ? "worse" : "better") : null), kind: "" },
  ];
  const matches = (row, query) => !query || row.low.includes(query) || String(row.c) === query;
  return {
    title: "Classes",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Classes"), el("p", null, "Marked are those that changed with 95 % confidence for all of them together.")),
      table("classes", columns, rows, matches, "Filter classes by name or number")],
  };
}

function comparedClassView(c) {
  const row = about().classes[c];
  if (!row) return noClass();
  const found = evidenceRow(c);
  const own = cases().filter((one) => one.label === c);
  return {
    title: row.name,
    content: [
      top("class", c, classOrder(), className, `Class ${count(c)}`, el("bdi", null, row.name)),
      el("dl", { class: "numbers" },
        el("div", null, el("dt", null, "Before"), el("dd", null, percent(row.before)), el("dd", { class: "note" }, `of its ${count(row.n_samples)} ${things()} right`)),
        el("div", { class: "chosen" }, el("dt", null, "Now"), el("dd", null, percent(row.after)), el("dd", { class: "note" }, row.sure ? (row.loss > 0 ? "worse with 95 % confidence" : "better with 95 % confidence") : "no sure change")),
        el("div", null, el("dt", null, "Change"), el("dd", null, known(row.loss) ? changed(row.loss) : "–", el("small", null, " points")), el("dd", { class: "note" }, row.interval ? `${changedBetween(row.interval)} with 95 % confidence` : `no ${thing()} of it is compared`)),
        el("div", null, el("dt", null, "Lost"), el("dd", null, count(row.lost)), el("dd", { class: "note" }, "right before, wrong now")),
        el("div", null, el("dt", null, "Won"), el("dd", null, count(row.won)), el("dd", { class: "note" }, "wrong before, right now"))),
      found ? evidenceSection(found) : el("section", null, heading("What it rests on", !about().comparable ? "This page has pictures of some classes only, of which this is none." : row.changed >= 0.05 ? `${whole(row.changed)} of its evidence changed; this page has pictures of the classes that changed most.` : "The same features as before, each nearly as much.")),
      own.length ? el("section", null, heading(`Its ${things()} that flip`, null), mapKey(), el("div", { class: "cases flips" }, own.map(flipCard))) : null,
    ],
  };
}

function evidenceView() {
  const rows = bundle("data-evidence");
  const left = about().n_evidence - rows.length;
  return {
    title: "Evidence",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Evidence"),
        el("p", null, `${capital(about().evidence_said)}.${rows.length ? ` Beside each feature stand the ${things()} on which it is strongest, before and now${about().comparable ? "; the classes that changed most come first" : ""}.${left > 0 ? ` ${plural(left, "more class is", "more classes are")} not shown.` : ""}` : ""}`)),
      rows.length ? mapKey() : null,
      rows.map((row) => el("section", null, el("h2", null, classLink(row.class), about().comparable ? el("span", { class: "note" }, ` ${whole(row.changed)} of its evidence changed`) : null), evidenceTraits(row, true)))],
  };
}

const evidenceSection = (row) => el("section", null, heading("What it rests on", about().comparable
  ? `${whole(row.changed)} of its evidence changed: shares of what raises its logit (orange) or lowers it (blue), before and now.`
  : "The features that count most before, and those that do now: the ones have hardly a partner among the others. A share is that of what raises its logit (orange) or lowers it (blue)."), mapKey(), evidenceTraits(row));

// Of networks whose features are not each other's: those of each side by themselves.
function unlikeTraits(row, briefly) {
  const shares = { old: "before", new: "after" };
  const scale = largestOf(row.features.flatMap((one) => [one.before, one.after]));
  const counts = (which) => row.features.filter((one) => known(one[which]) && Math.round(100 * one[shares[which]]));
  return el("div", { class: "pair" }, Object.entries(SIDE_NAMES).map(([which, title]) => el("div", null, el("h3", null, title),
    counts(which).length ? null : el("p", { class: "note" }, "No feature counts by as much as 1% of its evidence."),
    counts(which).map((one) => el("div", { class: "trait-shots" },
      el("div", { class: "means" }, el("span", { class: "feature" }, `feature ${one[which]}`), diverging(one[shares[which]], scale, ""),
        el("span", { class: "n" }, `${minus(String(Math.round(100 * one[shares[which]])))}%`)),
      one.shots[which] ? evidenceShots(one.shots[which], one[which], row.class, briefly) : null)))));
}

// briefly: of each feature only the images of the class, or those of others where there are none.
function evidenceTraits(row, briefly) {
  if (!about().comparable) return unlikeTraits(row, briefly);
  const scale = largestOf(row.features.flatMap((one) => [one.before, one.after]));
  return el("div", { class: "traits" }, row.features.map((one) => el("section", { class: "trait few" },
    el("div", { class: "trait-facts" },
      el("h3", null, featureChip(one), " ", one.what, one.verdict ? el("span", { class: `mark said-${one.verdict.replace(" ", "-")}` }, one.verdict) : null),
      el("div", { class: "means" }, [["before", one.before], ["now", one.after]].map(([name, value]) => [
        el("span", null, name), diverging(value, scale, `${Math.round(100 * value)}%`), el("span", { class: "n" }, `${minus(String(Math.round(100 * value)))}%`)]))),
    Object.entries(SIDE_NAMES).map(([which, title]) => el("div", { class: "trait-shots" },
      el("h4", null, known(one[which]) ? `${title}: feature ${one[which]}` : `${title}: it has no such feature`),
      one.shots[which] ? evidenceShots(one.shots[which], one[which], row.class, briefly) : null)))));
}

function evidenceShots({ own, others }, feature, c, briefly) {
  return [
    own.length ? strip(own, feature, c) : null,
    others.length && !(briefly && own.length) ? [el("h4", { class: own.length ? "elsewhere" : null }, "In other classes"), strip(others, feature, c)] : null];
}

function comparedSuspectsView() {
  const found = about().suspects;
  if (!found.new) return missing("No suspects", `${capital(found.notes.join("; "))}.`);
  const list = (rows, n, title, text) => el("section", null, heading(`${title}: ${count(n)}`, n > rows.length ? `${text} The first ${count(rows.length)} are shown.` : text),
    rows.length ? el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, el("table", { class: "plain groups" },
      el("thead", null, el("tr", null, ["Class", "Feature", "Overuse", "Verdict"].map((name, i) => el("th", { scope: "col", class: i === 2 ? "n" : null }, name)))),
      el("tbody", null, rows.map((row) => el("tr", null,
        el("th", { scope: "row" }, known(row.class) ? el("bdi", null, row.class) : `all classes with few ${things()}`),
        el("td", null, featureChip(row)), el("td", { class: "n" }, number(row.score)),
        el("td", null, row.verdict ? el("span", { class: `mark said-${row.verdict.replace(" ", "-")}` }, row.verdict) : null)))))) : null);
  return {
    title: "Suspects",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Suspects"),
        el("p", null, `Features that do too much in a class's decisions, as penult shortcuts found them in each run. Only a person can say whether one is a shortcut. ${plural(found.n_stayed, "suspect is", "suspects are")} the same in both.`)),
      list(found.new, found.n_new, "New", "Suspected now and not before."),
      list(found.gone, found.n_gone, "Gone", "Suspected before and no longer.")],
  };
}

document.addEventListener("DOMContentLoaded", firstFlips);
