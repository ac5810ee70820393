"""`append_events()`: the one way into a log in PostgreSQL.

One call is one transaction and takes a whole batch. The advisory lock comes first: who holds it is alone with the head
until its commit, so positions become visible in their order. Positions from a sequence, without that lock, would let a
reader that tails the log pass by an event whose transaction commits late.
"""

from __future__ import annotations

import struct

from libs.event_log.hash_chain import FIRST_PREVIOUS_HASH, LAYOUT

NONE_EXPECTED = -1
ANY_EXPECTED = -2
EXISTS_EXPECTED = -3

ORDERING_LOCK = "PERFORM pg_advisory_xact_lock(hashtextextended('labferry log @schema@', 0));"
NEXT_POSITION = "head_position := head_position + 1;"

_FUNCTION = """
-- A field of the canonical bytes: see libs/event_log/hash_chain.py. The database's encoding is UTF8.
CREATE FUNCTION @schema@.text_field(content text) RETURNS bytea LANGUAGE sql STABLE AS $field$
    SELECT int4send(octet_length(content)) || convert_to(content, 'UTF8')
$field$;

CREATE FUNCTION @schema@.append_events(
    -- one entry an append
    request_actors text[], request_methods text[], request_ids text[], request_digests bytea[],
    fence_names text[], fence_tokens bigint[], part_counts integer[],
    -- one entry a part: the events of one append for one stream
    streams text[], expected_revisions bigint[], event_counts integer[],
    -- one entry an event
    types text[], event_ids text[], payloads bytea[], actors text[], may_ignores boolean[],
    on_behalf_ofs text[], reasons text[], correlation_ids text[], causation_ids text[],
    -- the recorded time, never later than this server's clock; null: that clock
    now_ns bigint,
    -- whether this very batch was sent once, and its outcome is unknown
    sent_before boolean
) RETURNS TABLE (
    append_number integer, outcome text, at_position bigint, at_revision bigint, at_ns bigint, event_hash bytea,
    in_stream text, upto_position bigint, refused_part integer
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $append$
DECLARE
    store_fields bytea;
    integer_length CONSTANT bytea := int4send(8);
    head_position bigint;
    head_hash bytea;
    head_before bigint;
    recorded bigint;
    next_part integer := 1;
    next_event integer := 1;
    first_part integer;
    event_number integer;
    events_upto integer;
    first_position bigint;
    found_digest bytea;
    found_first bigint;
    found_last bigint;
    own_streams text[];
    own_revisions bigint[];
    starts bigint[];
    own integer;
    revision_now bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_events needs READ COMMITTED: an older snapshot doesn''t show the head';
    END IF;
    @ordering_lock@
    SELECT @layout@ || @schema@.text_field(l.store_id) INTO STRICT store_fields FROM @schema@.log l;
    SELECT e.position, e.hash, e.recorded_ns INTO head_position, head_hash, recorded
        FROM @schema@.events e ORDER BY e.position DESC LIMIT 1;
    IF NOT FOUND THEN
        head_position := 0; head_hash := @first_previous_hash@; recorded := 0;
    END IF;
    head_before := head_position;
    -- The clock may step back; the order of the log must not.
    recorded := greatest(
        recorded, least(now_ns, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000));

    FOR number IN 1 .. cardinality(part_counts) LOOP
        append_number := number; outcome := NULL; at_position := NULL; at_revision := NULL; at_ns := NULL;
        event_hash := NULL; in_stream := NULL; upto_position := NULL; refused_part := NULL;
        first_part := next_part;
        next_part := next_part + part_counts[number];
        event_number := next_event;
        FOR part IN first_part .. next_part - 1 LOOP
            next_event := next_event + event_counts[part];
        END LOOP;

        IF sent_before AND event_number < next_event THEN
            SELECT e.position INTO first_position FROM @schema@.events e WHERE e.event_id = event_ids[event_number];
            IF FOUND THEN
                RETURN QUERY SELECT number, 'recorded', e.position, e.revision, e.recorded_ns, e.hash, e.stream,
                        NULL::bigint, NULL::integer FROM @schema@.events e
                    WHERE e.position >= first_position AND e.position < first_position + next_event - event_number
                    ORDER BY e.position;
                CONTINUE;
            END IF;
        END IF;

        IF request_ids[number] IS NOT NULL THEN
            SELECT r.body_digest, r.first_position, r.last_position INTO found_digest, found_first, found_last
                FROM @schema@.requests r WHERE r.actor = request_actors[number]
                AND r.method = request_methods[number] AND r.request_id = request_ids[number];
            IF FOUND THEN
                outcome := CASE WHEN found_digest = request_digests[number] THEN 'repeated' ELSE 'reused' END;
                at_position := found_first; upto_position := found_last;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;

        IF fence_names[number] IS NOT NULL THEN
            -- The share lock keeps the lease from being lent anew before this transaction's end.
            PERFORM 1 FROM @schema@.leases l WHERE l.name = fence_names[number] AND l.token = fence_tokens[number]
                AND l.expires > clock_timestamp() FOR SHARE;
            IF NOT FOUND THEN
                outcome := 'lease_lost';
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;

        own_streams := ARRAY[]::text[]; own_revisions := ARRAY[]::bigint[]; starts := ARRAY[]::bigint[];
        FOR part IN first_part .. next_part - 1 LOOP
            own := array_position(own_streams, streams[part]);
            IF own IS NULL THEN
                SELECT coalesce(max(e.revision), -1) INTO revision_now
                    FROM @schema@.events e WHERE e.stream = streams[part];
                own_streams := own_streams || streams[part];
                own := cardinality(own_streams);
            ELSE
                revision_now := own_revisions[own];
            END IF;
            IF NOT (CASE expected_revisions[part]
                WHEN @any_expected@ THEN true
                WHEN @exists_expected@ THEN revision_now >= 0
                ELSE revision_now = expected_revisions[part] END)
            THEN
                outcome := 'conflict'; refused_part := part - first_part; at_revision := revision_now;
                RETURN NEXT;
                EXIT;
            END IF;
            starts := starts || revision_now;
            own_revisions[own] := revision_now + event_counts[part];
        END LOOP;
        CONTINUE WHEN outcome IS NOT NULL;

        outcome := 'recorded'; at_ns := recorded;
        first_position := head_position + 1;
        IF event_number = next_event THEN
            RETURN NEXT;
        END IF;
        FOR part IN first_part .. next_part - 1 LOOP
            in_stream := streams[part];
            at_revision := starts[part - first_part + 1];
            events_upto := event_number + event_counts[part] - 1;
            WHILE event_number <= events_upto LOOP
                @next_position@
                at_position := head_position; at_revision := at_revision + 1;
                head_hash := sha256(head_hash || store_fields
                    || integer_length || int8send(at_position)
                    || @schema@.text_field(in_stream)
                    || integer_length || int8send(at_revision)
                    || @schema@.text_field(types[event_number])
                    || @schema@.text_field(event_ids[event_number])
                    || integer_length || int8send(recorded)
                    || @schema@.text_field(actors[event_number])
                    || @schema@.text_field(on_behalf_ofs[event_number])
                    || @schema@.text_field(reasons[event_number])
                    || @schema@.text_field(correlation_ids[event_number])
                    || @schema@.text_field(causation_ids[event_number])
                    || CASE WHEN may_ignores[event_number] THEN '\\x0000000101'::bytea ELSE '\\x0000000100'::bytea END
                    || (int4send(octet_length(payloads[event_number])) || payloads[event_number]));
                event_hash := head_hash;
                INSERT INTO @schema@.events VALUES (at_position, in_stream, at_revision, types[event_number],
                    event_ids[event_number], recorded, actors[event_number], on_behalf_ofs[event_number],
                    reasons[event_number], correlation_ids[event_number], causation_ids[event_number],
                    may_ignores[event_number], head_hash, payloads[event_number]);
                RETURN NEXT;
                event_number := event_number + 1;
            END LOOP;
        END LOOP;
        IF request_ids[number] IS NOT NULL THEN
            INSERT INTO @schema@.requests VALUES (request_actors[number], request_methods[number],
                request_ids[number], request_digests[number], first_position, head_position);
        END IF;
    END LOOP;
    IF head_position > head_before THEN
        UPDATE @schema@.highest SET position = head_position;
        PERFORM pg_notify('labferry_@schema@', head_position::text);
    END IF;
END $append$;
"""


def append_function_sql() -> str:
    """SQL that makes the function; `@schema@` stands for the schema."""
    layout_field = struct.pack(">I", len(LAYOUT)) + LAYOUT
    return (
        _FUNCTION.replace("@ordering_lock@", ORDERING_LOCK)
        .replace("@next_position@", NEXT_POSITION)
        .replace("@layout@", _bytes_sql(layout_field))
        .replace("@first_previous_hash@", _bytes_sql(FIRST_PREVIOUS_HASH))
        .replace("@any_expected@", str(ANY_EXPECTED))
        .replace("@exists_expected@", str(EXISTS_EXPECTED))
    )


def _bytes_sql(content: bytes) -> str:
    return f"'\\x{content.hex()}'::bytea"
