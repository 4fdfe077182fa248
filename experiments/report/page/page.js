"use strict";
// The table: a press on a head sorts by it, a second press the other way round.
for (const [column, head] of document.querySelectorAll("#scores th").entries()) {
  head.querySelector("button").addEventListener("click", () => {
    const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", way);
    const body = document.querySelector("#scores tbody");
    const key = row => {
      const cell = row.children[column];
      return "value" in cell.dataset ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
    };
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (typeof x === "string") return way === "ascending" ? x.localeCompare(y) : y.localeCompare(x);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return way === "ascending" ? x - y : y - x;
    });
    body.append(...rows);
  });
}
// The viewer: one image under two settings, with a slider between them.
const viewer = document.getElementById("viewer");
if (viewer) {
  const get = id => document.getElementById(id);
  const strips = [...document.querySelectorAll(".strips:not(.anatomy) tr")].map(tr => ({
    label: tr.querySelector("th").textContent, images: [...tr.querySelectorAll("img")],
  }));
  let at = 0;
  for (const side of [get("left"), get("right")]) {
    for (const [i, strip] of strips.entries()) side.add(new Option(strip.label, i));
    side.addEventListener("change", show);
  }
  function show() {
    for (const [side, id] of [["right", "under"], ["left", "over"]]) {
      const strip = strips[get(side).value], image = strip.images[at];
      get(id).src = image.src;
      get(id).alt = "image " + at + ", " + strip.label;
      viewer.style.setProperty("--aspect", image.width / image.height);
    }
    get("viewer-title").textContent = "Image " + at;
  }
  const step = by => { const n = strips[0].images.length; at = (at + by + n) % n; show(); };
  get("previous").addEventListener("click", () => step(-1));
  get("next").addEventListener("click", () => step(1));
  get("slider").addEventListener("input", e => viewer.style.setProperty("--cut", e.target.value + "%"));
  for (const button of document.querySelectorAll(".strips button")) button.addEventListener("click", () => {
    at = Number(button.dataset.column);
    const row = Number(button.dataset.row);
    get("right").value = row;
    get("left").value = row === 0 ? Math.min(1, strips.length - 1) : 0;
    show();
    viewer.showModal();
  });
}
