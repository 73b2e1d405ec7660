"""The prose of docs/configuration.md that no type says: what is answered, refused and doubted."""

from __future__ import annotations

FULL_EXAMPLE = """\
zones:
  gtm.example.net:
    nameservers: [ns1.gtm.example.net]
    records:
      - {name: ns1, type: A, data: [192.0.2.53]}
lines:
  office: {networks: [203.0.113.0/24, "2001:db8:1::/48"]}
  dach: {any_of: [country:DE, country:AT, country:CH]}
  europe: {any_of: [dach, continent:EU], not: [office]}
checks:
  web: {type: http, path: /healthz}
  tls: {type: https, path: /healthz, verify: false, ip_version: 4}
pools:
  frankfurt:
    type: ipv4
    checks: [web, tls]
    check_judgement: {must: [tls]}       # web only tells
    addresses:
      - {value: 192.0.2.1, weight: 3, location: [50.1, 8.7], capacity: 2000}
      - {value: 192.0.2.2, mode: manual_up, note: "in until its agent is repaired"}
      - {value: 192.0.2.3, checks: [tls]}
    min_available: 50%
  frankfurt-v6: {type: ipv6, checks: [tls], addresses: [{value: "2001:db8::1"}]}
  cdn:
    type: domain
    checks: [tls]
    addresses: [{value: a.cdn.example.com, weight: 95}, {value: b.cdn.example.org, weight: 5}]
    steering: sticky
  hoster: {type: domain, flatten: true, checks: [tls], addresses: [{value: hoster.example.org}]}
  asia:
    type: ipv4
    checks: [tls]
    addresses:
      - {value: 198.51.100.1, lines: [country:JP], location: [35.7, 139.7]}
      - {value: 198.51.100.2, location: [1.3, 103.8]}
    steering: nearest
  sorry: {type: ipv4, addresses: [{value: 198.51.100.80}]}
instances:
  shop:
    domain: www.example.com
    rules:
      - name: office
        lines: [office]
        tiers: [{pools: [frankfurt, frankfurt-v6]}]
      - name: europe
        lines: [europe]
        tiers:
          - pools: [{pool: frankfurt, weight: 9}, hoster]
            steering: weighted
            min_available: 2
          - {pools: [hoster]}
        failback: {after: 5m}
        on_exhausted: widen
      - name: asia
        lines: [continent:AS]
        tiers: [{pools: [asia, frankfurt], steering: {type: sequence, preemptive: false}}]
      - name: world
        lines: [default]
        tiers: [{pools: [cdn]}, {pools: [frankfurt]}]
        failback: manual
    when_all_down: {pool: sorry}
"""
"""A whole set with the keys that the first example does without."""

WORDS = """
### What is answered

The client's rule is that of the narrowest line that it is on. Its first tier with an available pool
serves (`failover: auto`), or always the one that it is pinned to. In a tier its `steering` picks
among the available pools, `round_robin` all of them together, and in a pool its own picks among the
members that are in.

**Families.** Everything under a rule is judged for each address family by itself: for A only `ipv4`
pools count, for AAAA only `ipv6` ones; of a flattened domain pool those names that have addresses
of the family. A tier without a pool of the family is passed over, and a family that no tier of the
rule has is NODATA, never `when_all_down`.

**CNAME.** A domain pool without `flatten` answers one of its names as CNAME, whatever type is asked
for. A rule with such a pool is judged once for all types, so that A and AAAA never split between
addresses and a CNAME. Such a pool shares no tier with pools of addresses, and its instance no name
with other data: an apex asks for `flatten: true`.

**Up and available.** An address is up when as many of its checks are as `check_judgement` says:
all, any, a count, a share, or each of `{must: [CHECK, ...]}`, where the others only tell. A pool is
available while at least `min_available` of its members are up and one can be answered, a tier with
a `min_available` of its own while so many addresses are up over its available pools. Members that
are `offline` or `manual_down` are in no total.

**Return.** When an earlier tier is back it takes over at once (`failback: immediate`), after it was
available for so long (`{after: 5m}`), or when somebody says `gtm release` (`manual`).

**Brakes.** An address leaves the answers when it is judged down, but for two brakes: `floor` keeps
a share of the pool in answers whatever health says, and when too many addresses would leave service
at once, the last of them are held until an operator releases them or their verdicts have persisted
(docs/operations.md). Who is kept or held so is answered while its pool is the one chosen, but never
counted, so that a dead pool never stands before its backup. A check with `damping: true` holds an
address down whose verdict changed often, until it has been quiet for a while. While regions
disagree about a pool, or did in the last minute, answers that depend on it have the TTL
`ttl_wavering`, where that is given.

| `when_all_down` | answer when no tier of the client's rule is available |
|---|---|
| `lowest_ordinal` | all addresses of the first pool, in order of the tiers, that has any |
| `all` | all addresses of the rule |
| `last_good` | those of the rule's pool that was good last |
| `{pool: NAME}` | those of that pool, which need not be in the rule; it answers no CNAME |
| `{addresses: [...]}` | those addresses |
| `nodata` | none (NOERROR without addresses) |
| `servfail` | SERVFAIL |
| `drop` | no answer at all |

It sees one family alone, like everything under a rule. Never answered by any of its forms: members
that are `offline` or `manual_down`, and those that an operator forced down or drained. To drain is
an operator's business (`gtm force`), not one of files. With `on_exhausted: widen` the client falls
to the rule of its next wider line first; `when_all_down` applies when none serves.

A set that uses most of this:

```yaml
{full_example}```
"""

REFUSED = """
## What is refused, and what is doubted

Refused as a whole:

- names: duplicate or unknown ones; lines called `default` or `oversea`; two instances with one
  access name or one id; an access name outside our zones, at static addresses, at a CNAME or in a
  delegation;
- lines of your own: empty; made of themselves; nested deeper than {line_depth}, or of more than
  {line_parts:,} networks and lines; such that plainly nobody is on them, as on both of two
  countries;
- checks: a timeout (for ping: all packets) longer than the interval; `healthy_share` beside
  `failing_share` or `rise_share`; a check of `must` that an address does not have;
- pools: a member of another kind than `type`, or twice; `flatten` without names; a name that leads
  back to an instance that answers it; more than {addresses:,} members; a `floor` of 0%;
- pools that answer a CNAME: in a tier with addresses, as `when_all_down`, at an apex, beside other
  data of the name;
- rules: one that can never match, because earlier rules have all its lines, or lines of your own
  do, which go first whatever the order; no rule for `default` in an instance that does not say
  `unmatched: nodata`; a pin to a tier that does not exist;
- tiers: without a pool, with an empty one, or one twice; more different answers than can be made
  ahead;
- dead ends: clients that can reach no answer, because all members on their way are `offline` or
  `manual_down` (`when_all_down: nodata` says that this is meant); a `when_all_down` pool that is
  empty or of a family that no rule has;
- zones: a CNAME beside other data, and a loop of them; record data that its type does not take;
  times of DNS that are not whole seconds; a `ttl_wavering` that is not shorter than the `ttl`.

Warned of: a name server of ours without an address; a record that another zone hides; a member in
our zones where nothing is; a line that another rule has, or on which everybody is; `min_voters`
above the number of regions; a check that one region's word can flip; a `rise_share` that the
failing share implies; a `floor` where health takes nobody out; `ip_version` or `answering` without
names to probe; a `tls` check of addresses without `sni`; `min_available` or `check_judgement` that
can never be met; weights that are all 0; a `port` that no check probes, or that stands for several;
a `failback` that nothing asks for; clients that always get `nodata`, `servfail` or no answer;
clients without an IPv4 address where those of `default` get one.

Limits of a file: {size} MiB, {nodes:,} values, {depth} levels, {aliases:,} aliases.
"""
