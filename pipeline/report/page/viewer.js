// State, filters, stepping, deep links. The address after # tells the clip and the filters, and is kept up to date.

const byId = (name) => document.getElementById(name);
const NEAR = 5;

function initial(data) {
  const truth = truthOf(data);
  return { cls: null, split: null, order: 'file', events: '', set: Math.max(truth, 0), id: '', second: null, more: false, hidden: new Set() };
}

function indexOrNull(list, value) {
  const at = list.indexOf(value);
  return at < 0 ? null : at;
}

// #clip=ID&class=NAME&split=NAME&order=TITLE&events=audio&by=TITLE&holds=TEXT&second=4
function fromAddress(data, state) {
  const asked = new URLSearchParams(location.hash.slice(1)), titles = data.sets.map((one) => one.title);
  state.cls = indexOrNull(data.classes, asked.get('class'));
  state.split = indexOrNull(data.splits, asked.get('split'));
  const order = asked.get('order'), at = indexOrNull(titles, order);
  const told = order === 'dispute' ? order : at === null ? 'file' : String(at);
  state.order = [...byId('by-order').options].some((one) => one.value === told) ? told : 'file';
  state.events = ['audio', 'visual', 'both'].includes(asked.get('events')) ? asked.get('events') : '';
  state.set = indexOrNull(titles, asked.get('by')) ?? Math.max(truthOf(data), 0);
  state.id = asked.get('holds') ?? '';
  const second = Number.parseInt(asked.get('second') ?? '', 10);
  state.second = second >= 1 && second <= data.segments ? second - 1 : null;
  return asked.get('clip');
}

function address(data, state, clip) {
  const told = new URLSearchParams(), titles = data.sets.map((one) => one.title);
  if (clip !== null) told.set('clip', data.ids[clip]);
  if (state.cls !== null) told.set('class', data.classes[state.cls]);
  if (state.split !== null) told.set('split', data.splits[state.split]);
  if (state.order !== 'file') told.set('order', state.order === 'dispute' ? state.order : titles[Number(state.order)]);
  if (state.events) told.set('events', state.events);
  if (state.events && state.set !== Math.max(truthOf(data), 0)) told.set('by', titles[state.set]);
  if (state.id) told.set('holds', state.id);
  if (state.second !== null) told.set('second', state.second + 1);
  return '#' + told;
}

function options(select, pairs) {
  for (const [value, text] of pairs) select.append(make('option', { value, text }));
}

function fillForms(data) {
  const sets = data.sets.map((one, at) => [String(at), one.title]), truth = truthOf(data);
  const alphabetic = data.classes.map((name, at) => [String(at), name]).sort((a, b) => a[1].localeCompare(b[1]));
  options(byId('by-class'), [['', 'all'], ...alphabetic]);
  options(byId('by-split'), [['', 'all'], ...data.splits.map((name, at) => [String(at), name])]);
  const worst = truth < 0 ? [] : sets.filter(([at]) => Number(at) !== truth).map(([at, title]) => [at, `worst first: ${title}`]);
  const disputed = sets.length - (truth >= 0) > 1 ? [['dispute', 'most disputed among sets']] : [];
  options(byId('by-order'), [['file', 'as in the dataset'], ...worst, ...disputed]);
  options(byId('by-set'), sets.map(([at, title]) => [at, title]));
  for (const [at, title] of sets) {
    const box = make('input', { type: 'checkbox', value: at, checked: true });
    byId('sets').append(make('label', {}, box, ` ${title}`));
  }
}

function showForms(state) {
  byId('by-class').value = state.cls ?? '';
  byId('by-split').value = state.split ?? '';
  byId('by-order').value = state.order;
  byId('by-events').value = state.events;
  byId('by-set').value = String(state.set);
  byId('by-id').value = state.id;
}

function readForms(state) {
  const number = (name) => (byId(name).value === '' ? null : Number(byId(name).value));
  Object.assign(state, { cls: number('by-class'), split: number('by-split'), order: byId('by-order').value });
  Object.assign(state, { events: byId('by-events').value, set: Number(byId('by-set').value || 0), id: byId('by-id').value.trim() });
}

function start(data) {
  const state = initial(data);
  let clips = [], at = 0;

  function draw({ keep = true } = {}) {
    const clip = clips.length ? clips[at] : null;
    byId('clip').replaceChildren(clip === null ? make('p', { text: 'No clip passes these filters.' }) : drawClip(data, clip, state));
    byId('where').textContent = clip === null ? 'no clip' : `clip ${at + 1} of ${clips.length}`;
    byId('previous').setAttribute('aria-disabled', at <= 0); // not disabled, which would lose the focus
    byId('next').setAttribute('aria-disabled', at >= clips.length - 1);
    neighbours();
    if (keep) history.replaceState(null, '', address(data, state, clip));
  }

  function neighbours() {
    const from = Math.max(0, Math.min(at - NEAR, clips.length - 2 * NEAR - 1)), list = byId('neighbours');
    list.start = from + 1;
    list.replaceChildren(...clips.slice(from, from + 2 * NEAR + 1).map((clip, place) => {
      const worth = measure(data, clip, state.order), current = from + place === at;
      const link = make('a', { href: address(data, state, clip), 'data-at': from + place, 'aria-current': current ? 'true' : null, text: data.ids[clip] });
      return make('li', {}, link, make('span', { class: 'small', text: ` ${data.splits[data.split[clip]]}${worth === null ? '' : `, ${worth.toFixed(2)}`}` }));
    }));
  }

  function choose(wanted, keep = true) {
    clips = selected(data, state);
    at = Math.max(0, clips.indexOf(wanted));
    draw({ keep });
  }

  function step(to) {
    const next = Math.max(0, Math.min(to, clips.length - 1));
    if (!clips.length || next === at) return;
    at = next;
    draw();
  }

  function follow(keep) {
    const wanted = fromAddress(data, state), clip = data.ids.indexOf(wanted);
    showForms(state);
    if (clip >= 0 && !selected(data, state).includes(clip)) Object.assign(state, { cls: null, split: null, events: '', id: '' });
    showForms(state);
    choose(clip, keep);
  }

  fillForms(data);
  byId('filters').hidden = byId('stage').hidden = false;
  byId('filters').addEventListener('submit', (event) => event.preventDefault());
  byId('filters').addEventListener('input', (event) => {
    const clip = event.target.id === 'by-order' ? -1 : clips[at];
    readForms(state);
    choose(clip);
  });
  byId('previous').addEventListener('click', () => step(at - 1));
  byId('next').addEventListener('click', () => step(at + 1));
  byId('neighbours').addEventListener('click', (event) => {
    const place = event.target.dataset.at;
    if (place === undefined || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    step(Number(place));
    byId('neighbours').querySelector('[aria-current]')?.focus();
  });
  byId('sets').addEventListener('change', () => {
    state.hidden = new Set([...byId('sets').querySelectorAll('input:not(:checked)')].map((box) => Number(box.value)));
    draw();
  });
  byId('clip').addEventListener('click', (event) => {
    if (event.target.id === 'more') {
      state.more = !state.more;
      draw();
      byId('more')?.focus();
    } else if (event.target.dataset.second !== undefined) {
      const second = Number(event.target.dataset.second);
      state.second = state.second === second ? null : second;
      draw();
      byId('clip').querySelector(`[data-second="${second}"]`).focus();
    }
  });
  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest('input, select, textarea')) return;
    const scrolls = event.target.closest('.scroll'), wide = scrolls && scrolls.scrollWidth > scrolls.clientWidth;
    const places = { j: at + 1, k: at - 1 };
    if (!wide) Object.assign(places, { ArrowRight: at + 1, ArrowLeft: at - 1 });
    if (event.target.closest('#viewer')) Object.assign(places, { Home: 0, End: clips.length - 1 });
    if (event.key in places) {
      event.preventDefault();
      step(places[event.key]);
    }
  });
  window.addEventListener('hashchange', () => { if (location.hash.includes('clip=')) follow(true); else openTarget(); });
  follow(location.hash.includes('clip='));
  if (location.hash.includes('clip=')) byId('viewer').scrollIntoView();
  performance.mark('avvp-shown');
}

// A link to the origin of an artifact opens what is folded there.
function openTarget() {
  const target = location.hash.length > 1 ? byId(location.hash.slice(1)) : null;
  if (target?.tagName === 'DETAILS') {
    target.open = true;
    target.scrollIntoView();
  }
}

openTarget();
load().then(start, (error) => { console.error(error); byId('broken').hidden = false; });
