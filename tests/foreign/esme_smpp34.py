"""A gateway made with the package `smpp34`, played over JSON lines as esme_smpplib.py is; it sends no raw bytes."""

import asyncio
import json
import os
import sys

import smpp34


def tell(**event):
    sys.stdout.write(f"{json.dumps(event)}\n")
    sys.stdout.flush()


async def submit(smsc, command):
    fields = dict(command["fields"])
    text = bytes.fromhex(fields.pop("short_message", ""))
    tlvs = [smpp34.Tlv(tag, bytes.fromhex(value)) for tag, value in command.get("tlvs", [])]
    response = await smsc.submit_sm(fields.pop("destination_addr"), text, tlvs=tlvs, **fields)
    tell(event="response", tag=command["tag"], status=response.command_status, id=response.message_id)


async def listen(smsc):
    while True:
        event = await smsc.next()
        if isinstance(event, smpp34.Disconnected):
            tell(event="disconnected")
            return
        payload = {tlv.tag: tlv.value for tlv in event.tlvs}.get(smpp34.TLV_MESSAGE_PAYLOAD, event.short_message)
        tell(event="deliver", source=event.source_addr, esm_class=event.esm_class, text=payload.hex())


async def obey(reader, smsc, tasks):
    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "stop":
            return
        assert command["do"] == "submit", command
        tasks.create_task(submit(smsc, command))


async def commands():
    """Standard input, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main(port, system_id, password):
    client = smpp34.Client("127.0.0.1", port, system_id, password, bind_type="TRX")
    smsc = await client.connect()
    tell(event="bound")
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen(smsc))
        await obey(await commands(), smsc, tasks)
        await smsc.unbind()
        listening.cancel()
    await client.stop()


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
sys.stdout.flush()
os._exit(0)  # the package's own threads may crash an interpreter that takes its time to end
