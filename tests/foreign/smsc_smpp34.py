"""An SMSC made with the package `smpp34`, played over JSON lines as smsc.js is: it delivers and stops, no more."""

import asyncio
import json
import os
import sys

import smpp34


def tell(**event):
    sys.stdout.write(f"{json.dumps(event)}\n")
    sys.stdout.flush()


async def serve(server, sessions, first_id):
    """Answer what comes, until the server is stopped."""
    next_id, numbers = int(first_id, 16), {}
    while True:
        event = await server.next()
        match event:
            case smpp34.Esme():
                numbers[event.session_id] = len(numbers) + 1
                sessions[numbers[event.session_id]] = event
                tell(event="bound", session=numbers[event.session_id])
            case smpp34.SubmitSmEvent():
                tell(event="submit", session=numbers[event.session_id], id=f"{next_id:x}")
                event.accept(f"{next_id:x}")
                next_id += 1
            case smpp34.Unbound():
                tell(event="unbound", session=numbers[event.session_id])


async def deliver(esme, command):
    fields = dict(command["fields"])
    tlvs = [smpp34.Tlv(tag, bytes.fromhex(value)) for tag, value in command.get("tlvs", [])]
    text = bytes.fromhex(fields.pop("short_message", ""))
    response = await esme.deliver_sm(fields.pop("destination_addr"), text, tlvs=tlvs, **fields)
    tell(event="answered", tag=command["tag"], command="deliver_sm_resp", status=response.command_status)


async def obey(reader, sessions, tasks):
    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "stop":
            return
        assert command["do"] == "deliver", command
        tasks.create_task(deliver(sessions[command["session"]], command))


async def commands():
    """Standard input, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main(port, first_id):
    server = smpp34.Server("127.0.0.1", port)
    await server.start()
    tell(event="listening", port=port)
    sessions = {}
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(server, sessions, first_id))
        await obey(await commands(), sessions, tasks)
        serving.cancel()
    await server.stop()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
sys.stdout.flush()
os._exit(0)  # the package's own threads may crash an interpreter that takes its time to end
