"""A node's own server of a Galera cluster: what it says, and the leases that are kept in it (`modes.lease`).

Each statement is a transaction that the cluster certifies: it returns once it is ordered among all others, and
everything that was ordered before it is committed at this server. Its row count says whether the row was as it was
expected to be. A statement that ran on old rows is refused by certification (error 1213), and the pool runs it again
on the new ones.

As MariaDB 10.11 with Galera 26.4 was seen to do it: while servers come and go, a commit waits (1.3 s as
docs/quorum.md sets the times, 6 s by default) and may be done after its client has given it up. Without quorum
everything but SHOW and SET is refused with 1047; what was under way fails with 1180.
"""

from collections.abc import Mapping
from typing import Final, cast

from attrs import evolve

from dlrproxy.modes import inbox, node_settings
from dlrproxy.modes.cluster import MasterRow, Member, Observation, Rows, Server
from dlrproxy.modes.node_settings import NodeSettings
from dlrproxy.store.sql import partition, schema
from dlrproxy.store.sql.connection import Account, Value
from dlrproxy.store.sql.errors import FencedError, NoQuorumError, RefusedError, StatementError
from dlrproxy.store.sql.fence import names_in_inbox
from dlrproxy.store.sql.pool import Pool
from dlrproxy.store.sql.statements import literal, text

_STATUS: Final = (
    "wsrep_cluster_conf_id",
    "wsrep_cluster_size",
    "wsrep_cluster_state_uuid",
    "wsrep_cluster_status",
    "wsrep_cluster_weight",
    "wsrep_local_state_comment",
    "wsrep_ready",
)
_SHOW: Final = f"SHOW GLOBAL STATUS WHERE Variable_name IN ({','.join(repr(name) for name in _STATUS)})"
_MEMBERS: Final = (
    "SELECT m.node,m.epoch,m.beat,m.home,m.taken,m.heir,m.moved,i.content FROM members m "
    f"LEFT JOIN items i ON i.node=m.node AND i.kind={literal(node_settings.ROW)} AND i.name=''"
)
_MASTER: Final = "SELECT epoch,holder,beat FROM lease WHERE id=1"
# Where it is each session's alone, as in Percona XtraDB Cluster, there is no row: nobody has switched ours off.
_CERTIFIES: Final = "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'"


class Galera:
    """Nothing is dialled before it is needed. Used inside trio. Everything raises SqlError."""

    def __init__(self, account: Account, me: str, home: bytes, *, timeout_s: float, beat_timeout_s: float) -> None:
        """`home` is the id of the node's data directory. A beat that takes longer than `beat_timeout_s` is worth
        nothing."""
        # One connection each: a commit that waits for the cluster must not keep a look waiting.
        self._asking = Pool(account, 1, timeout_s)
        self._acting = Pool(account, 1, timeout_s)
        self._beating = Pool(account, 1, beat_timeout_s)
        self._renewing = Pool(account, 1, beat_timeout_s)
        self._node = me
        self._me = literal(me)
        self._inbox = names_in_inbox(me, inbox.MOST)
        self._home = literal(home)

    async def close(self) -> None:
        for pool in (self._asking, self._acting, self._beating, self._renewing):
            await pool.close()

    async def read(self) -> Observation:
        """What the server says of its cluster, of the leases and of the node's inbox, as far as it has applied them."""
        server = await status_of(self._asking)
        if not server.primary or not server.ready:
            return Observation(server=server)
        try:
            return await self._seen(server)
        except (NoQuorumError, StatementError, RefusedError, schema.SchemaError) as error:
            return Observation(server=server, trouble=str(error))  # since it said that; no schema; no rights

    async def _seen(self, server: Server) -> Observation:
        # Asked each time: another node's release may have changed the schema, or mended it.
        if misfit := (await schema.stage(self._asking)).misfit(self._asking.account.server):
            return Observation(server=server, misfit=misfit)
        master = [
            MasterRow(epoch=_int(epoch), holder=text(holder), beat=_int(beat))
            for epoch, holder, beat in (await self._asking.run(_MASTER)).rows
        ]
        rows = Rows(members=await members_of(self._asking), master=master[0] if master else MasterRow())
        said = (await self._asking.run(_CERTIFIES)).rows
        server = evolve(server, certifies=all(str(value).upper() == "ON" for _, value in said))
        return Observation(server=server, rows=rows, inbox=await self._names_in_inbox())

    async def _names_in_inbox(self) -> tuple[bytes, ...]:
        return tuple(cast("bytes", name) for (name,) in (await self._asking.run(self._inbox)).rows)

    # The own part

    async def claim(self, seen: Member | None) -> int | None:
        """Begin a term of service; returns its epoch, None when the row is no longer as it was seen."""
        if seen is None:
            # Of a node that was forgotten the fence is left, and stays above whatever it has left under way.
            epoch = await partition.fenced_by(self._acting, self._node) + 1
            made = await self._acting.run(
                "INSERT IGNORE INTO members (node,epoch,beat,home,taken,heir,moved) "
                f"VALUES ({self._me},{epoch},1,{self._home},0,'',0)"
            )
            return epoch if made.affected else None
        claimed = await self._acting.run(
            f"UPDATE members SET epoch=epoch+1,beat=beat+1,home={self._home},taken=0,heir='' "
            f"WHERE node={self._me} AND epoch={seen.epoch} AND beat={seen.beat}"
        )
        return seen.epoch + 1 if claimed.affected else None

    async def publish(self, settings: NodeSettings) -> None:
        """Tell the other nodes what this one is set to."""
        content = literal(node_settings.encode(settings))
        await self._acting.run(
            f"INSERT INTO items (node,kind,name,content) VALUES ({self._me},{literal(node_settings.ROW)},'',{content}) "
            "ON DUPLICATE KEY UPDATE content=VALUES(content)"
        )

    async def beat(self, epoch: int) -> bool:
        """True: the cluster has certified that this node holds its part under `epoch`. False: it does not."""
        counted = await self._beating.run(
            f"UPDATE members SET beat=beat+1 WHERE node={self._me} AND epoch={epoch} AND taken=0"
        )
        return counted.affected == 1

    # The master

    async def take_lease(self, seen: MasterRow) -> int | None:
        """Become master; returns the epoch, None when the row is no longer as it was seen."""
        await self._acting.run("INSERT IGNORE INTO lease (id,epoch,holder,beat) VALUES (1,0,'',0)")
        taken = await self._acting.run(
            f"UPDATE lease SET epoch=epoch+1,beat=beat+1,holder={self._me} "
            f"WHERE id=1 AND epoch={seen.epoch} AND beat={seen.beat}"
        )
        return seen.epoch + 1 if taken.affected else None

    async def renew(self, epoch: int) -> bool:
        """False: another node is master."""
        counted = await self._renewing.run(
            f"UPDATE lease SET beat=beat+1 WHERE id=1 AND epoch={epoch} AND holder={self._me}"
        )
        return counted.affected == 1

    async def take(self, node: str, seen: Member, heir: str) -> bool:
        """Fence a node that is gone. False: its row is no longer as it was seen."""
        taken = await self._acting.run(
            f"UPDATE members SET epoch=epoch+1,taken=1,heir={literal(heir)} "
            f"WHERE node={literal(node)} AND epoch={seen.epoch} AND beat={seen.beat}"
        )
        return taken.affected == 1

    async def move(self, node: str, epoch: int) -> int:
        """Give the rows of a taken node to its heir; returns how many there were. 0, too, when it is back."""
        found = await self._acting.run(
            f"SELECT heir FROM members WHERE node={literal(node)} AND epoch={epoch} AND taken=1"
        )
        if not found.rows:
            return 0
        try:
            moved = await partition.move(self._acting, node, epoch, text(found.rows[0][0]))
        except FencedError:
            return 0
        if moved:
            await self._acting.run(
                f"UPDATE members SET moved=moved+1 WHERE node={literal(node)} AND epoch={epoch} AND taken=1"
            )
        return moved.total()


async def members_of(pool: Pool) -> dict[str, Member]:
    """The nodes' rows, by name. Raises SqlError."""
    return {
        text(node): Member(
            epoch=_int(epoch),
            beat=_int(beat),
            home=cast("bytes", home),
            taken=taken == 1,
            heir=text(heir),
            moved=_int(moved),
            settings=node_settings.decode(cast("bytes | None", settings)),
        )
        for node, epoch, beat, home, taken, heir, moved, settings in (await pool.run(_MEMBERS)).rows
    }


async def status_of(pool: Pool) -> Server:
    """What a server says of its cluster, also without a quorum. Raises SqlError."""
    return server_of({str(name).lower(): value for name, value in (await pool.run(_SHOW)).rows})


def server_of(status: Mapping[str, Value]) -> Server:
    """From the names and values of SHOW GLOBAL STATUS. What a server does not say counts against it."""
    said = {name: str(status.get(name, "")) for name in _STATUS}
    return Server(
        primary=said["wsrep_cluster_status"].lower() == "primary",
        ready=said["wsrep_ready"].upper() == "ON",
        state=said["wsrep_local_state_comment"],
        size=_number(said["wsrep_cluster_size"]),
        weight=_number(said["wsrep_cluster_weight"]),
        conf_id=_number(said["wsrep_cluster_conf_id"]),
        uuid=said["wsrep_cluster_state_uuid"],
    )


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0


def _int(value: Value) -> int:
    return cast("int", value)
