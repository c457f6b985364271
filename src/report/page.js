// Sorting tables by a click on a column, and opening what is folded before the page is printed. (Without a "less than" and
// without an ampersand, so that the page is well-formed XML too.)
document.querySelectorAll('table.sort').forEach(table => {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      const key = row => row.cells[column].dataset.v;
      const order = (a, b) => {
        const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
        const numbers = [key(a), key(b)].every(k => k === 'inf' || k === '-inf' || k === 'NaN' || !Number.isNaN(Number(k)));
        if (!numbers) return key(a).localeCompare(key(b), undefined, { numeric: true });
        const value = (k, v) => k === 'inf' ? Infinity : k === '-inf' ? -Infinity : Number.isNaN(v) ? -Number.MAX_VALUE : v;
        return Math.sign(value(key(a), x) - value(key(b), y)) || 0;
      };
      const rows = Array.from(table.tBodies[0].rows).sort(order);
      if (down) rows.reverse();
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      table.tBodies[0].append(...rows);
    };
    head.addEventListener('click', sort);
    head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
  });
});
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(d => { d.open = true; }));
