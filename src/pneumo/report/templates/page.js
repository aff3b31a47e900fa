"use strict";
const byId = id => document.getElementById(id);

// Tables: a button in each heading sorts, a field filters.
for (const table of document.querySelectorAll("table.data")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const read = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") !== "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...body.rows];
      const isEmpty = text => text === "" || text === "–";
      const numeric = rows.every(row => isEmpty(read(row, column)) || !Number.isNaN(Number(read(row, column))));
      rows.sort((a, b) => {
        const [x, y] = [read(a, column), read(b, column)];
        if (isEmpty(x) || isEmpty(y)) return isEmpty(x) - isEmpty(y);
        return (falls ? -1 : 1) * (numeric ? Number(x) - Number(y) : x.localeCompare(y, "en"));
      });
      body.append(...rows);
    });
  });
}
for (const details of document.querySelectorAll("details.table")) {
  const rows = [...details.querySelectorAll("tbody tr")];
  if (rows.length < 6) continue;
  const line = document.createElement("p"), label = document.createElement("label");
  const field = document.createElement("input"), found = document.createElement("span");
  line.className = "filter";
  field.type = "search";
  field.id = `filter-${details.id}`;
  label.htmlFor = field.id;
  label.textContent = "Show rows with";
  found.className = "soft";
  found.setAttribute("role", "status");
  line.append(label, field, found);
  details.querySelector(".scroll").before(line);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    found.textContent = words.length ? `${rows.filter(row => !row.hidden).length} of ${rows.length}` : "";
  });
}

// Contents: the section in view is marked.
const links = new Map([...document.querySelectorAll("nav.contents a")].map(link => [link.hash.slice(1), link]));
const inView = new Set();
const observer = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target.id);
  const current = [...links.keys()].find(id => inView.has(id));
  if (!current) return;
  for (const [id, link] of links) id === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  const strip = links.get(current).closest("nav");
  if (strip.scrollWidth > strip.clientWidth) strip.scrollLeft = links.get(current).offsetLeft - strip.clientWidth / 3;
}, { rootMargin: "-15% 0px -60% 0px" });
for (const id of links.keys()) observer.observe(byId(id));

// What is folded is printed too, and a link into it opens it.
addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach(each => { each.open = true; each.dataset.folded = ""; }));
addEventListener("afterprint", () => document.querySelectorAll("details[data-folded]").forEach(each => { each.open = false; delete each.dataset.folded; }));

// Decisions: counts at a threshold, from the scores of the test set.
const points = byId("points");
if (points) {
  const { positive, negative, thresholds, name } = JSON.parse(points.dataset.scores);
  const steps = [...new Set([...positive, ...negative, ...thresholds.map(([, threshold]) => threshold)])].sort((a, b) => a - b);
  const share = (scores, threshold) => scores.filter(score => score >= threshold).length / scores.length;
  const slider = byId("threshold"), prevalence = byId("prevalence"), dot = points.querySelector(".dot.at");
  const { x0, x1, y0, y1 } = points.querySelector("svg").dataset;
  const place = (value, start, end) => Number(start) + value * (Number(end) - Number(start));
  const write = value => Number.isFinite(value) ? value.toFixed(3) : "–";
  const chips = new Map();
  const find = threshold => steps.indexOf(threshold);
  const show = () => {
    const threshold = steps[slider.value], ill = prevalence.value / 100;
    const sensitivity = share(positive, threshold), alarms = share(negative, threshold);
    const [tp, fn, fp, tn] = [ill * sensitivity, ill * (1 - sensitivity), (1 - ill) * alarms, (1 - ill) * (1 - alarms)];
    byId("threshold-value").textContent = threshold.toPrecision(3);
    byId("prevalence-value").textContent = `${prevalence.value} %`;
    slider.setAttribute("aria-valuetext", threshold.toPrecision(3));
    byId("sensitivity").textContent = write(sensitivity);
    byId("specificity").textContent = write(1 - alarms);
    byId("ppv").textContent = write(tp / (tp + fp));
    byId("npv").textContent = write(tn / (tn + fn));
    [tp, fn, fp, tn].forEach((part, i) => { byId("people").children[i].style.flex = `${part} 0 0`; });
    const per = value => Math.round(1000 * value);
    byId("sentence").textContent = `Of 1,000 examined, ${per(ill)} have ${name}. It calls ${per(tp) + per(fp)} of them ${name}, ` +
      `${per(tp)} rightly and ${per(fp)} wrongly, and misses ${per(fn)}.`;
    dot.setAttribute("cx", place(alarms, x0, x1));
    dot.setAttribute("cy", place(sensitivity, y0, y1));
    for (const [at, chip] of chips) chip.setAttribute("aria-pressed", find(at) === Number(slider.value));
  };
  slider.max = steps.length - 1;
  for (const [method, threshold] of thresholds) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = method;
    chip.addEventListener("click", () => { slider.value = find(threshold); show(); });
    chips.set(threshold, chip);
    byId("chips").append(chip);
  }
  slider.value = find(thresholds[0][1]);
  slider.addEventListener("input", show);
  prevalence.addEventListener("input", show);
  show();
}
