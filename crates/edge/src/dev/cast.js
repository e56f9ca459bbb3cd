// Who is who in the clinic, and which channels they use. Each visit has its own users and room, so that several
// browsers do not play in one.

export const ROLES = ['patient', 'doctor', 'pharmacist'];

export const CAST = {
  patient: {
    name: 'Ana',
    title: 'patient, on her phone',
    empty: 'Ana and Dr. Kim talk here. Write something.',
    chats: true,
  },
  doctor: {
    name: 'Dr. Kim',
    title: 'doctor, at her dashboard',
    empty: 'Answer Ana, or prescribe something: Leo and Ana hear of it in their inboxes.',
    chats: true,
    prescribes: true,
  },
  pharmacist: {
    name: 'Leo',
    title: 'pharmacist, at the counter',
    empty: 'Nothing to prepare. Orders of Dr. Kim arrive here.',
  },
};

export const MEDICINES = [
  ['Amoxicillin 500 mg', 'three times a day'],
  ['Ibuprofen 400 mg', 'with food'],
  ['Loratadine 10 mg', 'in the evening'],
  ['Omeprazole 20 mg', 'before breakfast'],
];

export const userOf = (role, visit) => `${role}-${visit}`;
export const inboxOf = (role, visit) => `user:${userOf(role, visit)}`;
export const roomOf = (visit) => `room:visit-${visit}`;
/** Whose user that is; undefined for a stranger. */
export const roleOf = (user, visit) => ROLES.find((role) => userOf(role, visit) === user);

/** What a role listens to. */
export function channelsOf(role, visit) {
  const inbox = inboxOf(role, visit);
  return role === 'pharmacist' ? [inbox] : [roomOf(visit), inbox];
}

/** What a role may publish to. */
export function targetsOf(role, visit) {
  if (role === 'patient') return [roomOf(visit)];
  if (role === 'doctor') return [roomOf(visit), inboxOf('patient', visit), inboxOf('pharmacist', visit)];
  return [inboxOf('patient', visit), inboxOf('doctor', visit)];
}

/** `abc-12` → 12; sequences of two epochs do not compare. */
export function isAtOrAfter(position, cursor) {
  if (!position || !cursor) return false;
  const [epochA, seqA] = position.split('-');
  const [epochB, seqB] = cursor.split('-');
  return epochA === epochB && Number(seqA) >= Number(seqB);
}
