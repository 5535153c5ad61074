"""A gateway made with python-smpplib, played over JSON lines: commands on stdin, what happened on stdout.

{"do": "submit", "tag": "m1", "fields": {...}, "tlvs": [[516, "0102"]]}   {"do": "raw", "bytes": "hex"}   {"do": "stop"}

{"event": "bound"}   {"event": "response", "tag": "m1", "status": 0, "id": "a1"}
{"event": "deliver", "source": "4670", "esm_class": 4, "text": "hex"}   {"event": "unknown", "error": "..."}

Fields are those of SMPP; texts and TLV values are hex. TLVs that smpplib has no name for cannot be sent with it; bytes
of a command that it does not know can, over its socket.
"""

import json
import select
import sys

import smpplib.client
import smpplib.consts
import smpplib.exceptions

TLV_NAMES = {number: name for name, number in smpplib.consts.OPTIONAL_PARAMS.items()}
NUMBERS = {"user_message_reference", "sar_msg_ref_num", "sar_total_segments", "sar_segment_seqnum"}


def tell(**event):
    sys.stdout.write(f"{json.dumps(event)}\n")
    sys.stdout.flush()


class Gateway:
    def __init__(self, port, system_id, password):
        self.tags = {}
        self.client = smpplib.client.Client("127.0.0.1", port, allow_unknown_opt_params=True)
        self.client.set_message_sent_handler(self.responded)
        self.client.set_error_pdu_handler(self.responded)
        self.client.set_message_received_handler(self.received)
        self.client.connect()
        self.client.bind_transceiver(system_id=system_id, password=password)
        tell(event="bound")

    def responded(self, pdu):
        identity = (getattr(pdu, "message_id", None) or b"").decode()
        tell(event="response", tag=self.tags.get(pdu.sequence), status=int(pdu.status), id=identity)

    def received(self, pdu):
        text = pdu.message_payload or pdu.short_message or b""
        tell(event="deliver", source=pdu.source_addr.decode(), esm_class=pdu.esm_class, text=text.hex())

    def submit(self, command):
        fields = dict(command["fields"])
        fields["short_message"] = bytes.fromhex(fields.get("short_message", ""))
        for number, value in command.get("tlvs", []):
            name, octets = TLV_NAMES[number], bytes.fromhex(value)
            fields[name] = int.from_bytes(octets, "big") if name in NUMBERS else octets
        self.tags[self.client.send_message(**fields).sequence] = command["tag"]

    def read(self):
        try:
            self.client.read_once()
        except smpplib.exceptions.UnknownCommandError as error:
            tell(event="unknown", error=str(error))

    def play(self):
        """Serve the socket and standard input, until told to stop."""
        socket = self.client._socket
        while True:
            readable, _, _ = select.select([socket, sys.stdin.buffer], [], [])
            if socket in readable:
                self.read()
            if sys.stdin.buffer in readable:
                line = sys.stdin.buffer.raw.readline()
                command = json.loads(line or b'{"do": "stop"}')
                if command["do"] == "stop":
                    return
                if command["do"] == "raw":
                    socket.sendall(bytes.fromhex(command["bytes"]))
                else:
                    self.submit(command)


gateway = Gateway(int(sys.argv[1]), *sys.argv[2:])
try:
    gateway.play()
finally:
    gateway.client.unbind()
    gateway.client.disconnect()
