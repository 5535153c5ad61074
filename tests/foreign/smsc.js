// An SMSC made with the npm package `smpp`, played over JSON lines: commands on stdin, what happened on stdout.
//
//   {"do": "deliver", "session": 1, "tag": "r1", "fields": {...}, "tlvs": [[5121, "0a0b"]]}
//   {"do": "vendor", "session": 1, "tag": "v1", "body": "hex"}       {"do": "stop"}
//   {"do": "ids", "ids": ["1001"]}      {"do": "hold"}      {"do": "respond", "id": "1001"}
//
//   {"event": "listening", "port": 1}      {"event": "bound", "session": 1}      {"event": "unbound", "session": 1}
//   {"event": "submit", "session": 1, "id": "a1"}      {"event": "vendor", "session": 1, "body": "hex"}
//   {"event": "answered", "tag": "r1", "command": "deliver_sm_resp", "status": 0}
//
// Fields are those of the package; texts and TLV values are hex. Ids count up from the first argument, in hex; those of
// `ids` come before. After `hold` a submit_sm is answered only when it is told to `respond`.
'use strict';

const path = require('path');
const readline = require('readline');
const smpp = require(path.resolve(process.argv[2], 'smpp'));

const VENDOR = 0x00010203;
smpp.addCommand('vendor_push', { id: VENDOR, params: { body: { type: restOfBody() } } });
smpp.addCommand('vendor_push_resp', { id: (VENDOR | 0x80000000) >>> 0, params: { body: { type: restOfBody() } } });

let nextId = BigInt('0x' + process.argv[3]);
let sessions = 0;
let holding = false;
const givenIds = [];
const held = new Map(); // by id: what sends the response
const bound = new Map();

// A body of bytes that mean nothing to anybody.
function restOfBody() {
  return {
    default: Buffer.alloc(0),
    read: (buffer, offset) => buffer.subarray(offset, buffer.readUInt32BE(0)),
    write: (value, buffer, offset) => value.copy(buffer, offset),
    size: (value) => value.length,
  };
}

function tell(event) {
  process.stdout.write(JSON.stringify(event) + '\n');
}

function serve(session) {
  const number = ++sessions;
  session.on('bind_transceiver', (pdu) => {
    bound.set(number, session);
    session.send(pdu.response({ system_id: 'npm-smpp', sc_interface_version: 0x34 }));
    tell({ event: 'bound', session: number, system_type: pdu.system_type });
  });
  session.on('submit_sm', (pdu) => {
    const id = givenIds.shift() ?? (nextId++).toString(16);
    const respond = () => session.send(pdu.response({ message_id: id }));
    if (holding) held.set(id, respond);
    else respond();
    tell({ event: 'submit', session: number, id });
  });
  session.on('vendor_push', (pdu) => {
    tell({ event: 'vendor', session: number, body: pdu.body.toString('hex') });
    session.send(pdu.response({ body: Buffer.concat([Buffer.from([0xff]), pdu.body]) }));
  });
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => {
    session.send(pdu.response());
    session.close();
  });
  session.on('error', (error) => tell({ event: 'error', session: number, error: String(error) }));
  session.on('close', () => {
    bound.delete(number);
    tell({ event: 'unbound', session: number });
  });
}

// Values that the package would interpret are given to it as buffers, so that it writes what it was told.
function prepared(command) {
  const fields = { ...command.fields };
  for (const name of ['short_message', 'message_payload', 'network_error_code']) {
    if (name in fields) fields[name] = Buffer.from(fields[name], 'hex');
  }
  for (const [tag, value] of command.tlvs || []) {
    const name = 'tlv_' + tag;
    if (!smpp.tlvsById[tag]) smpp.addTLV(name, { id: tag, type: smpp.types.tlv.buffer });
    fields[smpp.tlvsById[tag].tag] = Buffer.from(value, 'hex');
  }
  return fields;
}

function obey(command) {
  const answered = (pdu) => tell({ event: 'answered', tag: command.tag, command: pdu.command, status: pdu.command_status });
  if (command.do === 'deliver') bound.get(command.session).deliver_sm(prepared(command), answered);
  else if (command.do === 'vendor') bound.get(command.session).vendor_push({ body: Buffer.from(command.body, 'hex') }, answered);
  else if (command.do === 'ids') givenIds.push(...command.ids);
  else if (command.do === 'hold') holding = true;
  else if (command.do === 'respond') held.get(command.id)();
  else if (command.do === 'stop') process.exit(0);
  else throw new Error('unknown command: ' + JSON.stringify(command));
}

const server = smpp.createServer(serve);
server.listen(0, '127.0.0.1', () => tell({ event: 'listening', port: server.address().port }));
readline.createInterface({ input: process.stdin }).on('line', (line) => obey(JSON.parse(line))).on('close', () => process.exit(0));
