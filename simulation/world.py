"""One seed: builds a ring, lets everything go wrong that it has drawn, mends it, and judges what came of it."""

import random
from collections import Counter
from functools import partial
from typing import Final

from attrs import evolve, frozen

from ring.link_settings import LinkSettings
from ring.settings import ClusterSettings, CustodySettings, OperatorPolicy
from simulation.checker import Checker, Expected
from simulation.cluster import Database, Part
from simulation.disk import Disk
from simulation.faults import LONGEST_PAUSE_S, Faults
from simulation.gateway import Gateway
from simulation.history import History
from simulation.host import Host
from simulation.law import Law
from simulation.network import Network
from simulation.operator import Operator
from simulation.profiles import PROFILES, Profile
from simulation.site import Site, host_name
from simulation.timeline import Timeline
from simulation.traffic import OPERATOR, Submission, draw

# The product's numbers, but for those that would make a seed last for hours.
SETTINGS: Final = CustodySettings(
    claim_for_s=300.0,
    walk_retry_max_s=20.0,
    deliver_retry_max_s=5.0,
    decision_for_s=30.0,
)
_CLUSTER: Final = ClusterSettings(unmatched_for_s=15.0)
_SETTLES_S: Final = 5.0  # how often it is looked whether everything has come to rest
_PATIENCE_S: Final = 200.0  # on top of claim_for_s
_SPARES: Final = 2  # nodes that a reload may add
_LAPS_IN_TWO_RINGS: Final = (
    3  # before a policy decides: one at home, and over there one for the exact id and one for any
)


@frozen
class Outcome:
    seed: int
    profile: str
    events: int
    virtual_s: float
    cases: int
    delivered: int


class World:
    def __init__(self, seed: int, profile: str | None = None, *, frames: bool = False) -> None:
        """Everything that happens follows from `seed` (and from a profile that was named rather than drawn)."""
        choose = self.choose = random.Random(seed)
        names = list(PROFILES)
        self.seed = seed
        self.profile_name = profile or names[seed % len(names)]
        self.profile: Profile = PROFILES[self.profile_name]
        self.timeline = Timeline()
        self.history = History(self.timeline, frames=frames)
        self.lasts_s = choose.uniform(*self.profile.lasts_s)
        sites = self._two_rings() if self.profile.joined else self._one_ring()
        shared = choose.random() < 0.2 and not self.profile.cluster
        self.database = Database() if self.profile.cluster else None
        self.gateways = {site.host: "gw" if shared else f"gw-{site.host.replace('/', '-')}" for site in sites}
        self.settings = self._settings()
        self.summaries = choose.random() < 0.5 and not self.profile.cluster
        rings = [[host_name(cluster, node) for node in nodes] for cluster, nodes in self.rings.items()]
        self.traffic = draw(choose, self.profile.mix, rings, self.gateways, self.lasts_s)
        law = Law(Counter(site.cluster for site in sites))
        self.network = Network(self.timeline, choose, self.history, law.check)
        self.network.weather = self.profile.weather
        self.checker = Checker(self._expected())
        self.history.shown_to(self.checker)
        self.hosts = {site.host: self._host(site) for site in sites}
        self.operator = Operator(self.hosts, self.timeline, choose, self.history)
        for host in self.hosts.values():
            host.ended = partial(self.operator.bind_lost, host.name)
        self.faults = Faults(self.profile, self.hosts, self.network, self.operator, self.timeline, choose, self.history)

    def _one_ring(self) -> list[Site]:
        """What may become a node of it: those that are, and those that a reload may bring."""
        size = self.choose.randint(*self.profile.nodes)
        self.rings = {"": [f"n{number}" for number in range(size)]}
        return [Site("", f"n{number}") for number in range(size + (_SPARES if self.profile.reloads[1] else 0))]

    def _two_rings(self) -> list[Site]:
        """Joined by one or two gates each; nodes of the two go by the same names, or do not."""
        choose = self.choose
        same = choose.random() < 0.5
        self.rings = {
            cluster: [f"{letter}{number}" for number in range(choose.randint(*self.profile.nodes))]
            for cluster, letter in (("north", "n"), ("south", "n" if same else "s"))
        }
        gates = [
            host_name(cluster, node)
            for cluster, nodes in self.rings.items()
            for node in choose.sample(nodes, min(len(nodes), choose.randint(1, 2)))
        ]
        return [Site(cluster, node, tuple(gates)) for cluster, nodes in self.rings.items() for node in nodes]

    def _settings(self) -> CustodySettings:
        choose, profile = self.choose, self.profile
        return evolve(
            SETTINGS,
            operators={OPERATOR: OperatorPolicy(choose.choice(profile.unclaimed))},
            claim_for_s=choose.choice(profile.claim_for_s),
            lap_timeout_s=choose.choice(profile.lap_timeout_s),
            walk_retry_min_s=choose.choice(profile.walk_retry_min_s),
            max_messages=choose.choice(profile.max_messages),
            max_parked=choose.choice(profile.max_parked),
            max_walking=choose.choice(profile.max_walking),
            conversations=choose.random() < 0.5,
            cluster=_CLUSTER if profile.cluster else None,
        )

    def _expected(self) -> Expected:
        """A stopped process hears late of the end of its lap."""
        lap_s = 1.1 * self.settings.lap_timeout_s + (LONGEST_PAUSE_S if self.profile.pauses[1] else 1.0)
        # A link on which nothing passes is held for alive until it is dead; and a stopped process says nothing.
        notice_s = LinkSettings().dead_after_s + (LONGEST_PAUSE_S if self.profile.pauses[1] else 1.0)
        laps = _LAPS_IN_TWO_RINGS if self.profile.joined else 1
        return Expected(self.settings, lossy=self.profile.weather.loss > 0, lap_s=laps * lap_s, notice_s=notice_s)

    def _host(self, site: Site) -> Host:
        name = site.host
        policy = evolve(self.settings.policy(OPERATOR), local_gateway=self.gateways[name])
        timeline = self.timeline
        disk = Disk(
            self.choose, self.choose.randbytes(8), lambda: timeline.now, partial(self.checker.rows_changed, name)
        )
        part = None
        if self.database is not None:
            part = self.database.parts[name] = Part(partial(self.checker.rows_changed, name), self.database)
            disk.rows = part
        host = Host(
            site,
            self.rings[site.cluster],
            disk,
            Gateway(self.gateways[name], name, timeline, self.choose, self.history),
            evolve(self.settings, operators={OPERATOR: policy}),
            timeline,
            self.network,
            self.choose,
            self.history,
            self._converses,
            tells_summaries=self.summaries,
            part=part,
        )
        host.gateway.manners = self.profile.manners
        host.retired = site.node not in self.rings[site.cluster]  # a reload may bring it
        return host

    def _converses(self, node: str, subscriber: str) -> bool:
        return (node, subscriber) in self.traffic.conversations

    def run(self) -> Outcome:
        """Raises FoundError; and whatever the code raises."""
        self._plan()
        self.timeline.run_until(self.lasts_s)
        self.faults.mend()
        patience_s = self.settings.claim_for_s + _PATIENCE_S
        while self.timeline.now < self.lasts_s + patience_s and not self._at_rest():
            self.timeline.run_until(self.timeline.now + _SETTLES_S)
        self.checker.conclude({name: host.custody_rows for name, host in self.hosts.items()})
        cases = self.checker.cases.values()
        return Outcome(
            self.seed,
            self.profile_name,
            self.timeline.events,
            self.timeline.now,
            len(cases),
            sum(case.delivered for case in cases),
        )

    def _plan(self) -> None:
        for host in self.hosts.values():
            host.start()
        for submission in self.traffic.submissions:
            self.timeline.at(submission.at, partial(self._submit, submission))
        for sending in self.traffic.sendings:
            self.timeline.at(sending.at, partial(self.operator.send, sending))
        self.faults.plan(self.lasts_s)

    def _submit(self, submission: Submission) -> None:
        """The operator accepts an MT, if the node is there to send it."""
        host = self.hosts[submission.node]
        process = host.process
        if process is None or not process.ready or host.gateway.session is None:
            return
        name = submission.message_id.decode()
        self.history.note("submitted", name, host.name, host.gateway.name)

        def accepted() -> None:
            process.front.submitted(
                host.gateway,
                submission.message_id,
                submission.destination,
                partial(self.history.note, "responded", name, host.name),
            )

        process.do(accepted)

    def _at_rest(self) -> bool:
        """Every report was sent, and no disk has anything left to do."""
        return not self.operator.busy and not any(host.custody_rows for host in self.hosts.values() if not host.retired)

    def close(self) -> None:
        """Let go of everything that is under way."""
        for host in self.hosts.values():
            if host.process is not None:
                host.process.alive = False
                host.process.abandon_tasks()
