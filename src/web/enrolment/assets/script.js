// Copy buttons. Everything else works without a script.
'use strict';
if (navigator.clipboard) {
  const status = document.getElementById('copied');
  for (const button of document.querySelectorAll('button[data-copy]')) {
    button.hidden = false;
    const label = button.textContent;
    let back;
    button.addEventListener('click', async () => {
      const source = document.getElementById(button.dataset.copy);
      let outcome = 'Copied';
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        getSelection().selectAllChildren(source);
        outcome = 'Press Ctrl+C';
      }
      button.textContent = outcome;
      if (status) status.textContent = outcome;
      clearTimeout(back);
      back = setTimeout(() => {
        button.textContent = label;
        if (status) status.textContent = '';
      }, 2500);
    });
  }
}
