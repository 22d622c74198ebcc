// What the theme leaves out for those who do not use a pointer: a name for the search, and tables that the keys scroll.
function markTables() {
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (wide.scrollWidth > wide.clientWidth) {
      for (const [key, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "table"]]) wide.setAttribute(key, value);
    } else {
      for (const key of ["tabindex", "role", "aria-label"]) wide.removeAttribute(key);
    }
  }
}

document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
addEventListener("load", markTables);
addEventListener("resize", markTables);
