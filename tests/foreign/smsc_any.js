// An SMSC made with the npm package `smpp` that takes, makes and answers every command the package knows, over JSON lines.
//
//   {"do": "make", "tag": 1, "command": "deliver_sm", "fields": {...}, "tlvs": [[5121, "0a0b"]]}      encode, tell the bytes
//   {"do": "decode", "tag": 1, "bytes": "hex"}      whether the package can      {"do": "raw", "bytes": "hex"}      {"do": "stop"}
//
//   {"event": "listening", "port": 1}      {"event": "bound"}      {"event": "made", "tag": 1, "bytes": "hex"}
//   {"event": "decoded", "tag": 1, "pdu": {...}}      without pdu: it cannot be
//   {"event": "request", "pdu": {...}}      {"event": "response", "command": "deliver_sm_resp", "status": 0}
//   {"event": "error", "error": "..."}
//
// A pdu has the package's fields, bytes in hex. Requests are answered ESME_ROK at once, those for a message with an id.
'use strict';

const path = require('path');
const readline = require('readline');
const smpp = require(path.resolve(process.argv[2], 'smpp'));

const WITH_ID = new Set(['submit_sm', 'data_sm', 'submit_multi', 'broadcast_sm']);
let submitted = 0;
let peer = null;

function tell(event) {
  process.stdout.write(JSON.stringify(event) + '\n');
}

function shown(value) {
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (value instanceof Date) return value.toJSON();
  if (Array.isArray(value)) return value.map(shown);
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, of]) => [key, shown(of)]));
  return value;
}

// What was decoded, as its sender meant it: neither the sequence number nor the text that the package makes of bytes.
function told(pdu) {
  const fields = Object.entries(pdu).filter(([key, value]) => key !== 'sequence_number' && typeof value !== 'function');
  return shown(Object.fromEntries(fields));
}

function serve(session) {
  session.on('pdu', (pdu) => {
    if (pdu.isResponse()) {
      tell({ event: 'response', command: pdu.command, status: pdu.command_status });
      return;
    }
    if (pdu.command === 'bind_transceiver') {
      peer = session;
      session.send(pdu.response({ system_id: 'npm-smpp', sc_interface_version: 0x34 }));
      tell({ event: 'bound' });
      return;
    }
    if (pdu.command === 'enquire_link') session.send(pdu.response());
    else if (pdu.command === 'unbind') {
      session.send(pdu.response());
      session.close();
    } else {
      tell({ event: 'request', pdu: told(pdu) });
      session.send(pdu.response(WITH_ID.has(pdu.command) ? { message_id: 's' + (++submitted).toString(16) } : {}));
    }
  });
  session.on('error', (error) => tell({ event: 'error', error: String(error) }));
}

function made(command) {
  const fields = { ...command.fields };
  for (const name of ['short_message', 'message_payload', 'network_error_code', 'message']) {
    if (name in fields) fields[name] = Buffer.from(fields[name], 'hex');
  }
  for (const [tag, value] of command.tlvs || []) {
    if (!smpp.tlvsById[tag]) smpp.addTLV('tlv_' + tag, { id: tag, type: smpp.types.tlv.buffer });
    fields[smpp.tlvsById[tag].tag] = Buffer.from(value, 'hex');
  }
  return new smpp.PDU(command.command, { ...fields, sequence_number: command.tag }).toBuffer();
}

function decoded(bytes) {
  try {
    return { pdu: told(new smpp.PDU(bytes)) };
  } catch (error) {
    return {};
  }
}

function obey(command) {
  if (command.do === 'make') tell({ event: 'made', tag: command.tag, bytes: made(command).toString('hex') });
  else if (command.do === 'decode') tell({ event: 'decoded', tag: command.tag, ...decoded(Buffer.from(command.bytes, 'hex')) });
  else if (command.do === 'raw') peer.socket.write(Buffer.from(command.bytes, 'hex'));
  else if (command.do === 'stop') process.exit(0);
  else throw new Error('unknown command: ' + JSON.stringify(command));
}

const server = smpp.createServer(serve);
server.listen(0, '127.0.0.1', () => tell({ event: 'listening', port: server.address().port }));
readline.createInterface({ input: process.stdin }).on('line', (line) => obey(JSON.parse(line))).on('close', () => process.exit(0));
