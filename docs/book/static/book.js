// What scrolls sideways has to be reached by the keyboard too: code, tables and equations that are wider than the page.
const WIDE = "pre, .table-wrapper, .math-wrapper, div.output.text_html";

function reach() {
  for (const box of document.querySelectorAll(WIDE)) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", () => {
  reach();
  window.addEventListener("resize", reach);
  window.MathJax?.startup?.promise?.then(reach);        // equations are as wide as they are only when they are drawn
});

document.addEventListener("DOMContentLoaded", () => {
  for (const code of document.querySelectorAll("article :not(pre) > code")) {
    if (code.textContent.startsWith("-")) code.classList.add("option");
    else if (code.closest("td")) code.innerHTML = code.innerHTML.replace(/([a-zA-Z][._])(?=\w)/g, "$1<wbr>");
  }
});
