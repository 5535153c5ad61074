"""SMPP numbers that this product decides by (SMPP 3.4 chapter 5, SMPP 5.0 chapter 4).

Plain integers, because they are compared for every PDU. `tests/test_smpp_constants.py` checks
them against python-smpplib, a list that none of us wrote.
"""

from types import MappingProxyType

HEADER_SIZE = 16
RESPONSE_BIT = 0x80000000

# command_id (SMPP 3.4 5.1.2.1; the broadcast commands are SMPP 5.0's)
GENERIC_NACK = 0x80000000
BIND_RECEIVER = 0x00000001
BIND_RECEIVER_RESP = 0x80000001
BIND_TRANSMITTER = 0x00000002
BIND_TRANSMITTER_RESP = 0x80000002
QUERY_SM = 0x00000003
QUERY_SM_RESP = 0x80000003
SUBMIT_SM = 0x00000004
SUBMIT_SM_RESP = 0x80000004
DELIVER_SM = 0x00000005
DELIVER_SM_RESP = 0x80000005
UNBIND = 0x00000006
UNBIND_RESP = 0x80000006
REPLACE_SM = 0x00000007
REPLACE_SM_RESP = 0x80000007
CANCEL_SM = 0x00000008
CANCEL_SM_RESP = 0x80000008
BIND_TRANSCEIVER = 0x00000009
BIND_TRANSCEIVER_RESP = 0x80000009
OUTBIND = 0x0000000B
ENQUIRE_LINK = 0x00000015
ENQUIRE_LINK_RESP = 0x80000015
SUBMIT_MULTI = 0x00000021
SUBMIT_MULTI_RESP = 0x80000021
ALERT_NOTIFICATION = 0x00000102
DATA_SM = 0x00000103
DATA_SM_RESP = 0x80000103
BROADCAST_SM = 0x00000111
BROADCAST_SM_RESP = 0x80000111
QUERY_BROADCAST_SM = 0x00000112
QUERY_BROADCAST_SM_RESP = 0x80000112
CANCEL_BROADCAST_SM = 0x00000113
CANCEL_BROADCAST_SM_RESP = 0x80000113

BINDS = frozenset({BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER})

COMMAND_NAMES = MappingProxyType(
    {
        GENERIC_NACK: "generic_nack",
        BIND_RECEIVER: "bind_receiver",
        BIND_RECEIVER_RESP: "bind_receiver_resp",
        BIND_TRANSMITTER: "bind_transmitter",
        BIND_TRANSMITTER_RESP: "bind_transmitter_resp",
        QUERY_SM: "query_sm",
        QUERY_SM_RESP: "query_sm_resp",
        SUBMIT_SM: "submit_sm",
        SUBMIT_SM_RESP: "submit_sm_resp",
        DELIVER_SM: "deliver_sm",
        DELIVER_SM_RESP: "deliver_sm_resp",
        UNBIND: "unbind",
        UNBIND_RESP: "unbind_resp",
        REPLACE_SM: "replace_sm",
        REPLACE_SM_RESP: "replace_sm_resp",
        CANCEL_SM: "cancel_sm",
        CANCEL_SM_RESP: "cancel_sm_resp",
        BIND_TRANSCEIVER: "bind_transceiver",
        BIND_TRANSCEIVER_RESP: "bind_transceiver_resp",
        OUTBIND: "outbind",
        ENQUIRE_LINK: "enquire_link",
        ENQUIRE_LINK_RESP: "enquire_link_resp",
        SUBMIT_MULTI: "submit_multi",
        SUBMIT_MULTI_RESP: "submit_multi_resp",
        ALERT_NOTIFICATION: "alert_notification",
        DATA_SM: "data_sm",
        DATA_SM_RESP: "data_sm_resp",
        BROADCAST_SM: "broadcast_sm",
        BROADCAST_SM_RESP: "broadcast_sm_resp",
        QUERY_BROADCAST_SM: "query_broadcast_sm",
        QUERY_BROADCAST_SM_RESP: "query_broadcast_sm_resp",
        CANCEL_BROADCAST_SM: "cancel_broadcast_sm",
        CANCEL_BROADCAST_SM_RESP: "cancel_broadcast_sm_resp",
    }
)

# command_status (SMPP 3.4 5.1.3)
ESME_ROK = 0x00000000
ESME_RINVMSGLEN = 0x00000001
ESME_RINVCMDLEN = 0x00000002
ESME_RINVCMDID = 0x00000003
ESME_RINVBNDSTS = 0x00000004
ESME_RALYBND = 0x00000005
ESME_RSYSERR = 0x00000008
ESME_RINVSRCADR = 0x0000000A
ESME_RINVDSTADR = 0x0000000B
ESME_RINVMSGID = 0x0000000C
ESME_RBINDFAIL = 0x0000000D
ESME_RINVPASWD = 0x0000000E
ESME_RINVSYSID = 0x0000000F
ESME_RMSGQFUL = 0x00000014
ESME_RSUBMITFAIL = 0x00000045
ESME_RINVSYSTYP = 0x00000053
ESME_RTHROTTLED = 0x00000058
ESME_RX_T_APPN = 0x00000064
ESME_RX_P_APPN = 0x00000065
ESME_RX_R_APPN = 0x00000066
ESME_RDELIVERYFAILURE = 0x000000FE
ESME_RUNKNOWNERR = 0x000000FF

STATUS_NAMES = MappingProxyType({value: name for name, value in sorted(globals().items()) if name.startswith("ESME_R")})

# Statuses by which a gateway says "not now" to a deliver_sm; any other error is its last word.
TEMPORARY = frozenset({ESME_RTHROTTLED, ESME_RMSGQFUL, ESME_RSYSERR, ESME_RX_T_APPN})

# TLV tags (SMPP 3.4 5.3.2)
TLV_ADDITIONAL_STATUS_INFO_TEXT = 0x001D
TLV_RECEIPTED_MESSAGE_ID = 0x001E
TLV_USER_MESSAGE_REFERENCE = 0x0204
TLV_SAR_MSG_REF_NUM = 0x020C
TLV_SAR_TOTAL_SEGMENTS = 0x020E
TLV_SAR_SEGMENT_SEQNUM = 0x020F
TLV_SC_INTERFACE_VERSION = 0x0210
TLV_NETWORK_ERROR_CODE = 0x0423
TLV_MESSAGE_PAYLOAD = 0x0424
TLV_DELIVERY_FAILURE_REASON = 0x0425
TLV_MORE_MESSAGES_TO_SEND = 0x0426
TLV_MESSAGE_STATE = 0x0427

# esm_class of a message from the SMSC (SMPP 3.4 5.2.12)
ESM_TYPE_MASK = 0x3C
ESM_MO = 0x00
ESM_RECEIPT = 0x04
ESM_DELIVERY_ACK = 0x08
ESM_MANUAL_ACK = 0x10
ESM_ABORT = 0x18
ESM_INTERMEDIATE = 0x20
ESM_UDHI = 0x40

# message_state (SMPP 3.4 5.2.28; 0 and 9 are SMPP 5.0's)
MESSAGE_STATES = MappingProxyType(
    {
        0: "SCHEDULED",
        1: "ENROUTE",
        2: "DELIVRD",
        3: "EXPIRED",
        4: "DELETED",
        5: "UNDELIV",
        6: "ACCEPTD",
        7: "UNKNOWN",
        8: "REJECTD",
        9: "SKIPPED",
    }
)
# ACCEPTD is not final: sources disagree, and taking it for final would drop what follows.
FINAL_STATES = frozenset({"DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "REJECTD", "SKIPPED"})
