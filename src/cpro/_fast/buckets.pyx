"""The node's rate limits: GCRA in one word a bucket, all or nothing over several buckets.

A bucket's word is its theoretical arrival time: when it will be full again. Charging n tokens is allowed if
max(tat, now) + n * step - now <= full, and makes that sum the new tat. A full bucket is the same as an absent one, so
nothing needs collecting. The word's slot is named by a tag: the keyed hash of the client or user, mixed with the
identity of the layer. Memory, ownership and atomic ordering are those of `bucketfile`.

Several buckets: all are looked at first, and a refusal writes nothing. Then each is charged by compare-and-swap; if
another process took one bucket's last token meanwhile, what this call charged is given back within the call. Nothing
here reads a clock, or waits for longer than another process takes to insert a slot.

`now_ns` may be older than another worker's: the charge is then one of that moment, and counts as such in the envelope.
A tat is only called implausible (and repaired to "exactly empty") if it lies STALE_SECONDS beyond that, or a slow
worker would refund what a faster one charged.

A crash in the middle leaves tokens spent for an operation that never ran, never the reverse.
"""

from typing import NamedTuple

from cpro._fast cimport hashing
from cpro._fast.bucketfile cimport (
    STALE_SECONDS, Slot, cas16, find, hash_text, lock_stripe, place_probe, unlock_stripe,
)
from cpro.errors import StoreError


cdef extern from "cas16.h":
    int64_t saturated "cpro_saturated"(int64_t count, int64_t unit) noexcept nogil
    int64_t share "cpro_share"(int64_t part, int64_t whole, int64_t of) noexcept nogil

cdef enum:
    REFUSED_CODE = 2
    DRY_CODE = 3

cdef int64_t STALE_NS = STALE_SECONDS * 1_000_000_000LL
cdef int64_t MAX_NS = 1LL << 60

NEVER_NS = (1 << 63) - 1
CLIENT, USER = 0, 1
REFUSED = tuple([refuses(code) for code in range(64)])


class Layer(NamedTuple):
    """One bucket of a rule: it holds `full_ns / step_ns` tokens and refills one per `step_ns`."""

    block: int
    keyed_by: int
    identity: int
    step_ns: int
    full_ns: int
    previous_identity: int = 0
    previous_full_ns: int = 0
    returns: bool = False
    """It was in force before its predecessor was, so that what was used of both counts."""


cdef class Plan:
    """The buckets one kind of operation is charged to, in the order in which the blocks are asked. Immutable."""

    def __init__(self, layers, dry_run=(False, False, False)):
        ordered = sorted(layers, key=lambda layer: layer.block)
        if len(ordered) > MAX_LAYERS:
            raise ValueError(f"a plan has at most {MAX_LAYERS} buckets")
        if len({(layer.keyed_by, layer.identity) for layer in ordered}) != len(ordered):
            raise ValueError("a bucket stands twice in one plan")
        for place, layer in enumerate(ordered):
            if layer.block not in (0, 1, 2) or layer.keyed_by not in (CLIENT, USER):
                raise ValueError(f"unknown block or key: {layer}")
            if not (1 <= layer.step_ns <= layer.full_ns <= MAX_NS and 0 <= layer.previous_full_ns <= MAX_NS):
                raise ValueError(f"step and size must be 1 ns to 36 years, the size at least a step: {layer}")
            if layer.previous_identity and not layer.previous_full_ns:
                raise ValueError(f"a previous bucket needs its size: {layer}")
            self.layers[place] = Bucket(layer.identity, layer.step_ns, layer.full_ns, layer.previous_identity,
                                        layer.previous_full_ns, layer.block, layer.keyed_by, layer.returns)
            self.asks_client |= layer.keyed_by == CLIENT
            self.asks_user |= layer.keyed_by == USER
        for block in range(3):
            self.dry[block] = dry_run[block]
        self.count = len(ordered)

    def __len__(self):
        return self.count


cdef inline int digit(int code, int block) noexcept nogil:
    return (code >> (2 * block)) & 3


cdef inline int with_digit(int code, int block, int verdict) noexcept nogil:
    return (code & ~(3 << (2 * block))) | (verdict << (2 * block))


cdef inline void give_back(Probe* probe) noexcept nogil:
    """Undo a charge of this call, if nobody charged on top of it: their charge may already count on time that has
    passed, and subtracting from it would hand out tokens twice. Left alone, it errs towards fewer admissions."""
    cas16(probe.slot, probe.tag, probe.charged_tat, probe.tag, probe.charged_tat - probe.cost_ns)
    probe.charged_tat = 0


cdef class BucketTable(BucketFile):
    """Charge buckets with `charge`; ask what would happen with `look`."""

    def charge(self, Plan plan not None, str client not None, str user not None, int user_kind, int64_t now_ns,
               int64_t tokens=1):
        """Spend `tokens` from every bucket of the plan, or nothing at all.

        The code has two bits per block, the lowest first: 0 not asked, 1 admitted, 2 refused, 3 refused in dry run."""
        return self.charge_raw(plan, client, user, user_kind, now_ns, tokens)

    def look(self, Plan plan not None, str client not None, str user not None, int user_kind, int64_t now_ns,
             int64_t tokens=1):
        """What `charge` would answer, and in how many ns it would admit (NEVER_NS: more than a bucket holds)."""
        cdef Probe probes[MAX_LAYERS]
        cdef int64_t wait_ns = 0
        cdef int64_t own_wait_ns
        cdef int place
        self._aim(probes, plan, client, user, user_kind, now_ns, tokens)
        cdef int code = self._judge(probes, plan, now_ns)
        for place in range(plan.count):
            if probes[place].tag == 0 or plan.dry[plan.layers[place].block]:
                continue
            if probes[place].cost_ns > plan.layers[place].full_ns:
                return code, NEVER_NS
            probes[place].slot = find(&probes[place])
            own_wait_ns = self._base(&probes[place], &plan.layers[place], now_ns) - now_ns
            own_wait_ns -= plan.layers[place].full_ns - probes[place].cost_ns
            wait_ns = max(wait_ns, own_wait_ns)
        return code, wait_ns

    def tokens_left(self, Plan plan not None, str client not None, str user not None, int user_kind, int64_t now_ns):
        """The least number of tokens in any bucket of the plan; -1 if it has none for this client and user."""
        cdef Probe probes[MAX_LAYERS]
        cdef int64_t used_ns
        cdef int64_t least = -1
        cdef int64_t own
        cdef int place
        self._aim(probes, plan, client, user, user_kind, now_ns, 1)
        for place in range(plan.count):
            if probes[place].tag == 0:
                continue
            probes[place].slot = find(&probes[place])
            used_ns = self._base(&probes[place], &plan.layers[place], now_ns) - now_ns
            own = max(0, plan.layers[place].full_ns - used_ns) // plan.layers[place].step_ns
            least = own if least < 0 else min(least, own)
        return least

    cdef int charge_raw(self, Plan plan, str client, str user, int user_kind, int64_t now_ns, int64_t tokens) except -1:
        cdef Probe probes[MAX_LAYERS]
        cdef int code
        cdef int block
        self._aim(probes, plan, client, user, user_kind, now_ns, tokens)
        code = self._judge(probes, plan, now_ns)
        for block in range(3):
            if digit(code, block) == REFUSED_CODE:
                return code
        return self._spend_all(probes, plan, code, now_ns)

    cdef int _aim(self, Probe* probes, Plan plan, str client, str user, int user_kind, int64_t now_ns,
                  int64_t tokens) except -1:
        """Fill in which slots are meant, and ask for their memory: the misses of all layers overlap."""
        cdef uint64_t entities[2]
        cdef uint64_t tag
        cdef bint asked[2]
        cdef int place
        cdef int keyed_by
        if self.header == NULL:
            raise StoreError("the bucket table is closed")
        if tokens < 1 or now_ns < 0 or now_ns > MAX_NS:
            raise ValueError("tokens must be at least 1, now_ns a reading of CLOCK_BOOTTIME")
        asked[0] = plan.asks_client
        asked[1] = plan.asks_user and not (user_kind == 1 and len(user) == 0)
        if asked[0]:
            entities[0] = hash_text(&self.key, 0, client)
        if asked[1]:
            entities[1] = hash_text(&self.key, <uint64_t>user_kind, user)
        for place in range(plan.count):
            keyed_by = plan.layers[place].keyed_by
            if not asked[keyed_by]:
                probes[place].tag = 0
                continue
            probes[place].entity = entities[keyed_by]
            probes[place].cost_ns = saturated(tokens, plan.layers[place].step_ns)
            tag = hashing.mix(entities[keyed_by] ^ plan.layers[place].identity)
            place_probe(&probes[place], self.slots, self.groups, tag)
        return 0

    cdef int64_t _base(self, Probe* probe, const Bucket* layer, int64_t now_ns) noexcept nogil:
        """When the bucket is full again, not before now. An absent one starts with what its predecessor has used."""
        cdef Probe previous
        cdef int64_t own = now_ns
        if probe.slot != NULL:
            own = max(now_ns, probe.tat)
            if own - now_ns > layer.full_ns + STALE_NS:
                own = now_ns + layer.full_ns
            if not layer.returns:
                return own
        if layer.previous_identity != 0:
            place_probe(&previous, self.slots, self.groups, hashing.mix(probe.entity ^ layer.previous_identity))
            if find(&previous) != NULL and previous.tat > now_ns:
                own = max(own, now_ns + share(previous.tat - now_ns, layer.full_ns, layer.previous_full_ns))
        return own

    cdef int _judge(self, Probe* probes, Plan plan, int64_t now_ns) noexcept nogil:
        """Ask the blocks in turn, up to the first refusal, without spending."""
        cdef int code = 0
        cdef int place
        cdef int64_t base
        cdef int64_t room
        cdef const Bucket* layer
        cdef Probe* probe
        for place in range(plan.count):
            probe = &probes[place]
            if probe.tag == 0:
                continue
            layer = &plan.layers[place]
            probe.slot = find(probe)
            base = self._base(probe, layer, now_ns)
            room = layer.full_ns - probe.cost_ns - (base - now_ns)
            if room >= 0:
                probe.scarce = room < 4 * probe.cost_ns
                if digit(code, layer.block) == 0:
                    code = with_digit(code, layer.block, 1)
                continue
            if probe.slot != NULL and base < probe.tat:  # implausibly far: repair it, or it would refuse for as long
                cas16(probe.slot, probe.tag, probe.tat, probe.tag, base)
            if not plan.dry[layer.block]:
                return with_digit(code, layer.block, REFUSED_CODE)
            code = with_digit(code, layer.block, DRY_CODE)
        return code

    cdef int _spend_all(self, Probe* probes, Plan plan, int code, int64_t now_ns) except -1:
        """Charge what was admitted; give all back if a racing worker took one bucket's last token meanwhile.

        Buckets that are nearly empty go first: where the race is lost, little has been charged."""
        cdef int scarce
        cdef int place
        cdef int other
        cdef int block
        for place in range(plan.count):
            probes[place].charged_tat = 0
        for scarce in (1, 0):
            for place in range(plan.count):
                block = plan.layers[place].block
                if probes[place].tag == 0 or digit(code, block) != 1 or probes[place].scarce != scarce:
                    continue
                if self._spend(&probes[place], &plan.layers[place], now_ns):
                    continue
                for other in range(plan.count):
                    if probes[other].charged_tat != 0 and (not plan.dry[block] or plan.layers[other].block == block):
                        give_back(&probes[other])
                if not plan.dry[block]:
                    return with_digit(code & ((1 << (2 * block)) - 1), block, REFUSED_CODE)
                code = with_digit(code, block, DRY_CODE)
        return code

    cdef int _spend(self, Probe* probe, const Bucket* layer, int64_t now_ns) except -1:
        """1 = charged; 0 = another worker took what was left."""
        cdef int64_t base
        while True:
            if probe.slot == NULL:
                if self._insert(probe, layer, now_ns):
                    return probe.charged_tat != 0
            base = self._base(probe, layer, now_ns)
            if base - now_ns > layer.full_ns - probe.cost_ns:
                return 0
            if cas16(probe.slot, probe.tag, probe.tat, probe.tag, base + probe.cost_ns):
                probe.charged_tat = base + probe.cost_ns
                return 1
            probe.slot = find(probe)

    cdef int _insert(self, Probe* probe, const Bucket* layer, int64_t now_ns) except -1:
        """1 = settled (charged, or no room for the cost); 0 = the tag has a slot after all, in `probe.slot`."""
        cdef int64_t base
        lock_stripe(self.header, probe.tag)
        probe.slot = find(probe)
        if probe.slot == NULL:
            base = self._base(probe, layer, now_ns)
            if base - now_ns <= layer.full_ns - probe.cost_ns:
                while not self.claim_slot(probe, base + probe.cost_ns, now_ns):
                    pass
                probe.charged_tat = base + probe.cost_ns
            unlock_stripe(self.header, probe.tag)
            return 1
        unlock_stripe(self.header, probe.tag)
        return 0
