// One clip as a table: pictures, then of every class each set's seconds. Text of strangers is only ever set as text.

const NAMES = ['heard', 'seen'], LETTERS = ['A', 'V'], MANY = 12;

function make(tag, options = {}, ...children) {
  const { text, ...rest } = options, node = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  if (text !== undefined) node.textContent = text;
  node.append(...children.filter((child) => child));
  return node;
}

function truthOf(data) {
  return data.sets.length && data.sets[0].kind === 'truth' ? 0 : -1;
}

// What one cell says, in words and as a letter: called, likely, missed.
function reading(data, set, entry, modality, second, clip) {
  const byte = cell(data, set, entry, modality, second), hard = byte >= HARD, soft = (byte & SOFT) / SOFT;
  const truth = truthOf(data), compared = truth >= 0 && set !== truth && data.known[clip] === 1;
  const real = compared && cell(data, truth, entry, modality, second) >= HARD;
  const kind = hard ? (compared && !real ? 'hard wrong' : 'hard') : compared && real ? 'missed' : '';
  const letter = hard ? LETTERS[modality] + (compared && !real ? '×' : '') : compared && real ? '○' : '';
  return { hard, soft, kind, letter };
}

function drawCell(data, set, entry, second, clip) {
  const box = make('td', { class: 'second' }), words = [];
  for (const modality of [0, 1]) {
    const one = reading(data, set, entry, modality, second, clip);
    const part = make('span', { class: `cell ${'av'[modality]} ${one.kind}`, text: one.letter });
    part.style.setProperty('--p', Math.round(one.soft * 100) + '%');
    box.append(part);
    words.push(`${NAMES[modality]} ${one.soft.toFixed(2)}${one.hard ? ', called' : ''}`);
  }
  box.title = `${data.sets[set].title}, second ${second + 1}: ${words.join('; ')}`;
  return box;
}

function setRow(data, set, entry, clip, second) {
  const one = data.sets[set], row = make('tr', { class: one.kind });
  row.append(make('th', { scope: 'row', title: [one.method, one.reference].filter(Boolean).join(', '), text: one.title }));
  const status = data.status[set * data.ids.length + clip];
  if (status !== 1) {
    const why = one.kind === 'truth' ? 'its seconds are not labelled' : status ? 'this clip failed here' : 'this clip is not in this set';
    row.append(make('td', { colspan: data.lengths[clip], class: 'nothing', text: why }));
    return row;
  }
  for (let at = 0; at < data.lengths[clip]; at++) {
    const box = drawCell(data, set, entry, at, clip);
    if (at === second) box.classList.add('looked');
    row.append(box);
  }
  return row;
}

// Classes of the weak label and true ones first; the others are called by some set only.
function entriesOf(data, clip) {
  const named = [], called = [], truth = truthOf(data);
  for (let entry = data.first[clip]; entry < data.first[clip + 1]; entry++) {
    let real = data.entry_weak[entry] === 1;
    for (let second = 0; !real && truth >= 0 && second < data.lengths[clip]; second++) {
      real = cell(data, truth, entry, 0, second) >= HARD || cell(data, truth, entry, 1, second) >= HARD;
    }
    (real ? named : called).push(entry);
  }
  return { named, called };
}

function classBody(data, entry, clip, state) {
  const body = make('tbody'), name = data.classes[data.entry_class[entry]];
  const weak = data.entry_weak[entry] ? 'in the weak label' : 'not in the weak label';
  const title = make('div', {}, make('b', { text: name }), make('span', { class: 'small', text: ` ${weak}` }));
  body.append(make('tr', { class: 'class' }, make('th', { colspan: data.lengths[clip] + 1, scope: 'rowgroup' }, title)));
  data.sets.forEach((_, set) => {
    if (!state.hidden.has(set)) body.append(setRow(data, set, entry, clip, state.second));
  });
  return body;
}

function pictureRow(data, clip) {
  const seconds = data.lengths[clip], source = picture(data, clip);
  const kind = !source ? 'none' : seconds > MANY ? 'pictures never' : 'pictures';
  const row = make('tr', { class: kind }, make('th', { scope: 'row', text: source ? 'frames, sound' : 'pictures' }));
  const words = `Clip ${data.ids[clip]}: one frame of each of its ${seconds} seconds, left to right; below them its spectrogram, high pitches above.`;
  const box = make('td', { colspan: seconds });
  if (source) box.append(make('img', { src: source, alt: words }));
  else box.append(make('p', { class: 'nothing', text: `No pictures: ${data.reasons[data.reason[clip]]}` }));
  row.append(box);
  return row;
}

// Where a column is too small for a picture, on narrow screens and in long clips: the same, large, to be scrolled.
function widePicture(data, clip) {
  const source = picture(data, clip), words = `Frames and spectrogram of clip ${data.ids[clip]}, to scroll`;
  if (!source) return null;
  const image = make('img', { src: source, alt: words }), kind = data.lengths[clip] > MANY ? 'scroll wide always' : 'scroll wide';
  image.style.width = `${4.6 * data.lengths[clip]}rem`;
  return make('div', { class: kind, tabindex: 0, role: 'region', 'aria-label': words }, image);
}

function headRow(data, clip, state) {
  const row = make('tr', {}, make('th', { scope: 'col', text: 'second' }));
  for (let second = 0; second < data.lengths[clip]; second++) {
    const pressed = String(second === state.second);
    const button = make('button', { type: 'button', 'data-second': second, 'aria-pressed': pressed, 'aria-label': `second ${second + 1}: why`, text: second + 1 });
    row.append(make('th', { scope: 'col' }, button));
  }
  return row;
}

// Why the labels of one second are what they are: soft labels, logits beside thresholds, the weak label.
function whyTable(data, clip, entries, state) {
  const head = make('tr');
  for (const text of ['class', 'set', 'heard', 'soft', 'logit', 'threshold', 'seen', 'soft', 'logit', 'threshold']) {
    head.append(make('th', { scope: 'col', class: text === 'set' ? 'text' : null, text }));
  }
  const body = make('tbody');
  for (const entry of entries) {
    data.sets.forEach((one, set) => {
      if (state.hidden.has(set) || !there(data, set, clip)) return;
      const row = make('tr', {}, make('td', { class: 'text', text: data.classes[data.entry_class[entry]] }));
      row.append(make('th', { scope: 'row', text: one.title }));
      for (const modality of [0, 1]) {
        const { hard, soft } = reading(data, set, entry, modality, state.second, clip);
        const z = logit(data, set, entry, modality, state.second);
        const cut = one.cuts.length ? one.cuts[modality][data.entry_class[entry]] : null;
        const shown = [hard ? 'yes' : 'no', one.kind === 'truth' ? '' : soft.toFixed(2), z === null ? '' : z.toFixed(2)];
        for (const text of [...shown, typeof cut === 'number' ? cut.toFixed(2) : cut ?? '']) row.append(make('td', { text }));
      }
      body.append(row);
    });
  }
  const times = `Second ${state.second + 1} (${state.second} to ${state.second + 1} s)`;
  const caption = make('caption', { text: `${times}: methods call a class where its logit is over the threshold and, as a rule, the weak label names it; parsers where its probability is` });
  return make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Why' }, make('table', { class: 'why' }, caption, make('thead', {}, head), body));
}

function drawClip(data, clip, state) {
  const { named, called } = entriesOf(data, clip), open = state.more || !named.length;
  const entries = open ? [...named, ...called] : named, box = document.createDocumentFragment();
  const known = ['its seconds are not labelled', 'heard and seen labelled apart', 'only what is heard and seen at once is labelled'];
  box.append(make('h3', { text: data.ids[clip] }));
  box.append(make('p', { class: 'small', text: `${data.splits[data.split[clip]]}, ${data.lengths[clip]} s, ${known[data.known[clip]]}` }));
  const wide = widePicture(data, clip);
  if (wide) box.append(wide);
  const table = make('table', { class: 'clip' }, make('thead', {}, pictureRow(data, clip), headRow(data, clip, state)));
  for (const entry of entries) table.append(classBody(data, entry, clip, state));
  if (data.lengths[clip] > MANY) table.style.setProperty('--least', 7 + data.lengths[clip] * 1.7 + 'rem');
  const label = `Labels of clip ${data.ids[clip]}, second by second`;
  box.append(make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label }, table));
  if (!entries.length) box.append(make('p', { text: 'No class is named, true or called in this clip.' }));
  if (called.length && named.length) {
    const text = open ? 'Only classes that are named or true' : `Show ${called.length} more that some set calls or thinks likely`;
    box.append(make('button', { type: 'button', id: 'more', 'aria-expanded': String(open), text }));
  }
  if (state.second !== null && state.second < data.lengths[clip]) box.append(whyTable(data, clip, entries, state));
  return box;
}
