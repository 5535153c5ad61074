"""What one operator's relay has counted since the start. Plain integers, for they are counted for every PDU.

Every way of giving something up has its own counter; its name is the same in the log, in the metrics and in
docs/operations.md (promise 7).
"""

from attrs import define


@define
class Counters:
    """One operator at one node."""

    # Messages of the gateways (submit_sm, submit_multi, data_sm and whatever else they ask of the operator)
    requests: int = 0  # sent to the operator
    open_messages: int = 0  # responses that became one
    throttled: int = 0  # answered ESME_RTHROTTLED or ESME_RMSGQFUL by the operator; passed to the gateway
    slowed: int = 0  # slow_on_throttle: times that the pace was halved for it
    waited_for_room: int = 0  # every bind's window was full, or the pace was reached
    refused_no_bind: int = 0  # no operator bind up: no_bind_status
    refused_busy: int = 0  # no window room in time, or too many wait: busy_status
    refused_draining: int = 0  # this node drains: busy_status
    refused_store: int = 0  # the store takes no writes, or does not keep up: ESME_RMSGQFUL
    refused_state: int = 0  # the session's state rules the request out: ESME_RINVBNDSTS
    unanswered_link_lost: int = 0  # the operator's connection was lost before the response: no_bind_status
    unanswered_in_time: int = 0  # no response within response_s: no_bind_status
    conversations_forgotten: int = 0  # before mo.conversation_s was over, since too many were to be remembered
    response_unknown: int = 0  # a response to nothing that waits: dropped
    response_session_gone: int = 0  # the gateway's session ended before the response: dropped; the message is open

    # Reports and MO of the operator (deliver_sm and data_sm)
    reports: int = 0
    mo: int = 0
    matched: int = 0  # reports whose message is this node's
    matched_elsewhere: int = 0  # of these: its gateway is not bound at this node; kept for wherever it is
    missed: int = 0  # reports that no open message of this node answers to
    ambiguous: int = 0  # of these: several messages could be meant
    inexact: int = 0  # of these: one could be meant, by a rule that is not in force
    no_id: int = 0  # reports that name no message
    mo_by_rule: int = 0
    mo_in_conversation: int = 0  # with a gateway of this node; those with another node's go by custody
    mo_parts: int = 0  # parts of concatenated MO, whose place is decided for all of them
    passed: int = 0  # written to a gateway's session, straight from the operator
    answered_ok: int = 0
    answered_error: int = 0  # a permanent error of the gateway's, passed to the operator
    answered_temporary: int = 0
    answered_late: int = 0  # after gateway_answer_s
    answer_timeout: int = 0  # no answer within gateway_answer_s
    queued_behind: int = 0  # waited for an earlier report of the same message
    before_response: int = 0  # waited for its own submit_sm_resp to be written
    delayed: int = 0  # waited receipt_delay_ms
    race_held: int = 0  # waited for outstanding responses
    race_resolved: int = 0  # of these: found its message then
    late_intermediate: int = 0  # an intermediate report after a final one: answered ESME_ROK, not delivered
    repeated: int = 0  # sent again after the loss of its bind or a retry_status: answered for the first copy
    to_custody: int = 0
    refused_custody: int = 0  # custody could not take it: retry_status
    refused_full: int = 0  # too many wait for their answer: retry_status
    refused_slow: int = 0  # not placed, or not on disk, within operator_answer_s: retry_status
    refused_store_read: int = 0  # the store could not be read: retry_status
    refused_temporary: int = 0  # on_temporary_error = "retry_status": retry_status
    abandoned: int = 0  # its operator bind was lost before it was passed on; the operator sends it again
    answer_bind_gone: int = 0  # the gateway's answer found the operator's bind gone

    # From custody to a gateway
    from_custody: int = 0

    # receipt_id = "as-submitted"
    id_as_received: int = 0  # a report whose id could not be replaced: passed as it was received

    # Anything else
    outbind_refused: int = 0  # who connected where the operator does, and was not the operator: closed
    bind_refusals: int = 0  # the operator refused a bind (ESME_RINVPASWD, ESME_RALYBND...): an alarm
    others: int = 0  # other requests of the operator's, passed to a gateway
    others_refused: int = 0  # no session takes it: ESME_RX_T_APPN, or dropped where no response exists
    unresponsive_gateway: int = 0  # a session that left a request unanswered for response_s: closed
    tls_failed: int = 0  # no agreement on TLS with who connects to us, or no certificate of its own: closed
    unreadable_stream: int = 0  # a bad command_length: generic_nack, closed
