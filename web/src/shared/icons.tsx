// Line icons on a grid of 20; decoration only, the buttons that hold them have names.
const PATHS = {
  plus: 'M10 4v12M4 10h12',
  search: 'M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4zm4 9 3.500 3.500',
  menu: 'M3.500 6h13M3.500 10h13M3.500 14h13',
  close: 'm5 5 10 10M15 5 5 15',
  more: 'M4.500 10h.01M10 10h.01M15.500 10h.01',
  sliders: 'M3 6h8m4 0h2M3 14h2m4 0h8M13 4v4M7 12v4',
  gear: 'M10 7.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5zM10 2.500v2.300m0 10.400v2.300M2.500 10h2.300m10.400 0h2.300M4.700 4.700l1.600 1.600m7.400 7.400 1.600 1.600m0-10.600-1.600 1.600m-7.400 7.400-1.600 1.600',
  send: 'M10 16V4.500M5 9l5-5 5 5',
  stop: 'M6 6h8v8H6z',
  copy: 'M7 7h9v9H7zM4 13V4h9',
  check: 'm4 10.500 4 4 8-9',
  edit: 'M4 16l.8-3.600L13 4.200l2.800 2.800-8.200 8.200zM11.500 5.800l2.700 2.700',
  again: 'M15.500 8A6 6 0 1 0 16 11.500M16 4v4.200h-4.200',
  bars: 'M4 16V9m4 7V5m4 11v-5m4 5V7',
  trash: 'M4 6h12M8 6V4h4v2M6 6l.7 10h6.600L14 6',
  clip: 'M14.500 9.500l-5 5a3 3 0 0 1-4.300-4.300l5.800-5.800a2 2 0 0 1 2.900 2.900l-5.700 5.700a1 1 0 0 1-1.400-1.400l5-5',
  play: 'M7 4.500v11l8.500-5.500z',
  left: 'm12 5-5 5 5 5',
  right: 'm8 5 5 5-5 5',
  down: 'M10 4v11.500M5 11l5 5 5-5',
  curve: 'M3 4v13h14M5.500 6c1.500 6 5 7.500 10.500 8',
  chat: 'M4 4.500h12v9H9l-3.500 3v-3H4z',
  alert: 'M10 3 2.500 16.500h15zM10 8v4m0 2.300v.01',
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

// A hand mill: the runner with its handle on the bed stone.
export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path class="bed" d="M4 22.500c0-1.700 5.400-3 12-3s12 1.300 12 3V25c0 1.700-5.400 3-12 3S4 26.700 4 25z" />
      <path class="runner" d="M6.500 13c0-1.500 4.300-2.600 9.500-2.600s9.500 1.100 9.500 2.600v3.500c0 1.500-4.300 2.600-9.500 2.600s-9.500-1.100-9.500-2.600z" />
      <path class="handle" d="M22 12.500V4.500" />
      <ellipse class="eye" cx="15" cy="13" rx="2.600" ry=".9" />
    </svg>
  );
}
