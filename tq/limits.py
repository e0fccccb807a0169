"""Every bound of tq that people, peers or tasks meet, with its default, in one place.

What bounds the memory of one module alone stands in that module. A bound ends in `_max`; a unit stands last (`_bytes`,
`_ms`, `_s`). These are constants until somebody needs a knob. What exceeds a bound is refused with an error that names
the bound; nothing is cut silently.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# The wire (docs/protocol.md).
frame_hello_bytes_max: Final = 4 * KIB
frame_bytes_max: Final = 256 * KIB
output_frame_bytes_max: Final = 64 * KIB
depth_max: Final = 32
handshake_s: Final = 5.0
look_s: Final = 2.0  # a first answer may take so long, however short a wait: what has ended has ended
hello_s: Final = 5.0
connections_max: Final = 20_000
unauthenticated_max: Final = 256
unauthenticated_by_address_max: Final = 64
strikes_addresses_max: Final = 4_096
send_queue_bytes_max: Final = 4 * MIB
answers_bytes_max: Final = 1 * MIB  # queued for a client: further ones wait until it has read
reads_max: Final = 8  # of a client that are being answered at a time, since each answer may fill a frame
delivery_s_max: Final = 15.0

# What one submit may carry.
body_bytes_max: Final = 192 * KIB
argv_items_max: Final = 4_096
path_bytes_max: Final = 4_096
argument_bytes_max: Final = 128 * KIB - 1  # the kernel's MAX_ARG_STRLEN
environment_items_max: Final = 4_096
stdin_bytes_max: Final = 4 * MIB
stdin_inline_bytes_max: Final = 64 * KIB
piece_bytes_max: Final = 128 * KIB
entries_items_max: Final = 1_000
entries_bytes_max: Final = 192 * KIB
entry_bytes_max: Final = 120 * KIB  # TQ_ENTRY=… and an argument with it stay under the kernel's bound
name_chars_max: Final = 128
tags_max: Final = 32
key_chars_max: Final = 128
digest_bytes_max: Final = 64
array_size_max: Final = 100_000_000
upload_ttl_ms: Final = 10 * 60_000
key_ttl_ms: Final = 24 * 3_600_000

# The engine: one command, one turn.
members_per_command_max: Final = 1_000
leases_per_dispatch_max: Final = 2_000
turn_ms_max: Final = 5.0
turn_changes_max: Final = 4_000
turn_bulk_bytes_max: Final = 128 * KIB  # of uploads
turn_bulk_bytes_beside_max: Final = 32 * KIB  # while others ask, who wait for that turn
bulk_rest_ms: Final = 3  # between two such turns
bulk_beside_ms: Final = 100  # others are thought to ask for so long after they did
page_items_max: Final = 1_000
page_keys_max: Final = 1_000
page_runs_max: Final = 16  # of entries that a page of tasks or dead letters reads: each is up to entries_bytes_max
page_bytes_max: Final = 192 * KIB  # of a page of results, or of workers: what differs in size
wait_ids_max: Final = 10_000  # of one wait, and on one connection
waited_ids_max: Final = 1_000_000  # of one `tq wait`, which asks page by page
waits_max: Final = 256  # on one connection
wait_ids_of_token_max: Final = 100_000
wait_ids_all_max: Final = 250_000  # of all clients together; each costs the server about 200 bytes
streams_max: Final = 16  # of a client's connection; each may hold what the store has of one attempt: 2 MiB
streams_of_token_max: Final = 512
streams_all_max: Final = 2_048
lanes_max: Final = 10_000
put_off_ms: Final = (1_000, 3_600_000)  # first and longest rest of what fails by a bug
put_off_max: Final = 1_000  # so many of them; more is damage and no bug, and the server ends
put_off_of_lane_max: Final = 16  # jobs of one lane; then all of it rests
passed_over_max: Final = 16  # attempts and jobs at which one command of a worker fails; then it fails as a whole
put_off_of_sweep_max: Final = 16  # jobs of one sweep; then what is left of it rests as a whole
history_max: Final = 10
result_inline_bytes_max: Final = 1_024
result_bytes_max: Final = 128 * KIB

# Function tasks. A time limit begins when the module is there: its import has so long, or the limit if that is longer.
# A process that calls functions is replaced after so many calls, when it has grown by more than that beside twice its
# first size, or when it was idle for so long.
function_chars_max: Final = 255
function_import_s_max: Final = 600.0
function_calls_max: Final = 50_000
function_growth_bytes_max: Final = 256 * MIB
function_idle_s_max: Final = 300.0
exception_message_bytes_max: Final = 2 * KIB
exception_traceback_bytes_max: Final = 16 * KIB
modules_max: Final = 256

# Workers.
heartbeat_s: Final = 5.0
missed_beats_max: Final = 3
silent_beats_max: Final = 2  # of a server, for its workers: who leaves then is back before what it holds is given away
reattach_beats: Final = 12
reattach_s_min: Final = 5.0
slots_max: Final = 4_096
offer_words_max: Final = 256  # queues and labels of a worker
offer_word_bytes_max: Final = 255  # each text of what it offers, in UTF-8
held_max: Final = 2_000
spool_output_bytes_max: Final = 64 * MIB  # as much as a worker keeps in memory
predecessors_max: Final = 64
trouble_pause_ms: Final = (1_000, 60_000)  # of a worker that could not start what it was given: first, longest
quarantine_troubles: Final = 5  # in a row
trouble_chars_max: Final = 255  # of what such a worker says about it
troubles_failed_max: Final = 16  # jobs that such a worker could not start, the latest ones
prefetch_max: Final = 512
prefetch_ms: Final = 150
prefetch_runs_min: Final = 4
prefetch_runs_seen: Final = 100
prefetch_runs_latest: Final = 5  # of them: if most of these are slow, all of late are
reconnect_holding_s_max: Final = 2.0
reconnect_s_max: Final = 10.0
drain_s: Final = 30.0
drain_ms_max: Final = 7 * 24 * 3_600_000
kill_after_ms: Final = 10_000
signal_max: Final = 64
exit_code_max: Final = 255
measured_slack_ms: Final = 10_000  # by which a worker's measure of time may exceed what is possible by the server's
cpus_max: Final = 8_192  # of one machine, for its CPU time: more than Linux can be built for today
unkillable_s: Final = 60.0
output_drain_ms: Final = 2_000

# Output of an attempt, for each stream: the head once, then a ring of slots that overwrite each other.
output_slot_bytes: Final = 16 * KIB
output_head_slots: Final = 4
output_ring_slots: Final = 65
output_low_disk_bytes_max: Final = 4 * KIB  # of each stream of an attempt, while the disk is nearly full

# Retries and losses.
backoff_ms: Final = (1_000, 300_000)
backoff_ms_max: Final = 7 * 24 * 3_600_000
retry_codes_max: Final = 64
retries_max: Final = 1_000_000
crash_limit: Final = 3
retries: Final = 3
priority_max: Final = 100

# The store.
wal_bytes_max: Final = 256 * MIB
free_bytes_min: Final = 512 * MIB
stop_s_max: Final = 10.0
