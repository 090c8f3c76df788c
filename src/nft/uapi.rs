//! Numbers of the kernel's interface, each group under the name of its enum. Headers: linux/netlink.h,
//! linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h, where not said otherwise.

#![forbid(unsafe_code)]

/// linux/netlink.h: message types, flags and attribute flags.
pub mod nl {
    /// NLMSG_ERROR
    pub const ERROR: u16 = 2;
    /// NLMSG_DONE
    pub const DONE: u16 = 3;
    /// NLMSG_OVERRUN
    pub const OVERRUN: u16 = 4;
    /// NLM_F_REQUEST
    pub const F_REQUEST: u16 = 0x1;
    /// NLM_F_ACK
    pub const F_ACK: u16 = 0x4;
    /// NLM_F_DUMP_INTR
    pub const F_DUMP_INTR: u16 = 0x10;
    /// NLM_F_REPLACE
    pub const F_REPLACE: u16 = 0x100;
    /// NLM_F_EXCL
    pub const F_EXCL: u16 = 0x200;
    /// NLM_F_CREATE
    pub const F_CREATE: u16 = 0x400;
    /// NLM_F_APPEND
    pub const F_APPEND: u16 = 0x800;
    /// NLM_F_DUMP
    pub const F_DUMP: u16 = 0x300;
    /// NLA_F_NESTED
    pub const A_NESTED: u16 = 0x8000;
    /// NLA_TYPE_MASK
    pub const A_TYPE_MASK: u16 = 0x3fff;
}

/// linux/netfilter/nfnetlink.h
pub mod nfnl {
    /// NFNL_SUBSYS_NFTABLES
    pub const SUBSYS_NFTABLES: u16 = 10;
    /// NFNL_MSG_BATCH_BEGIN
    pub const BATCH_BEGIN: u16 = 0x10;
    /// NFNL_MSG_BATCH_END
    pub const BATCH_END: u16 = 0x11;
    /// NFNL_BATCH_GENID (`enum nfnl_batch_attributes`)
    pub const BATCH_GENID: u16 = 1;
}

/// `enum nf_tables_msg_types`
pub mod msg {
    /// NFT_MSG_NEWTABLE
    pub const NEWTABLE: u8 = 0;
    /// NFT_MSG_GETTABLE
    pub const GETTABLE: u8 = 1;
    /// NFT_MSG_DELTABLE
    pub const DELTABLE: u8 = 2;
    /// NFT_MSG_NEWCHAIN
    pub const NEWCHAIN: u8 = 3;
    /// NFT_MSG_GETCHAIN
    pub const GETCHAIN: u8 = 4;
    /// NFT_MSG_DELCHAIN
    pub const DELCHAIN: u8 = 5;
    /// NFT_MSG_NEWRULE
    pub const NEWRULE: u8 = 6;
    /// NFT_MSG_GETRULE
    pub const GETRULE: u8 = 7;
    /// NFT_MSG_DELRULE
    pub const DELRULE: u8 = 8;
    /// NFT_MSG_NEWSET
    pub const NEWSET: u8 = 9;
    /// NFT_MSG_DELSET
    pub const DELSET: u8 = 11;
    /// NFT_MSG_NEWSETELEM
    pub const NEWSETELEM: u8 = 12;
    /// NFT_MSG_GETSETELEM
    pub const GETSETELEM: u8 = 13;
    /// NFT_MSG_DELSETELEM
    pub const DELSETELEM: u8 = 14;
    /// NFT_MSG_NEWGEN
    pub const NEWGEN: u8 = 15;
    /// NFT_MSG_GETGEN
    pub const GETGEN: u8 = 16;
}

/// `enum nft_hook_attributes`
pub mod hook {
    /// NFTA_HOOK_HOOKNUM
    pub const HOOKNUM: u16 = 1;
    /// NFTA_HOOK_PRIORITY
    pub const PRIORITY: u16 = 2;
}

/// `enum nft_table_attributes`
pub mod table {
    /// NFTA_TABLE_NAME
    pub const NAME: u16 = 1;
    /// NFTA_TABLE_FLAGS
    pub const FLAGS: u16 = 2;
    /// NFTA_TABLE_USE
    pub const USE: u16 = 3;
    /// NFTA_TABLE_HANDLE
    pub const HANDLE: u16 = 4;
    /// NFTA_TABLE_USERDATA
    pub const USERDATA: u16 = 6;
}

/// `enum nft_chain_attributes`
pub mod chain {
    /// NFTA_CHAIN_TABLE
    pub const TABLE: u16 = 1;
    /// NFTA_CHAIN_HANDLE
    pub const HANDLE: u16 = 2;
    /// NFTA_CHAIN_NAME
    pub const NAME: u16 = 3;
    /// NFTA_CHAIN_HOOK
    pub const HOOK: u16 = 4;
    /// NFTA_CHAIN_POLICY
    pub const POLICY: u16 = 5;
    /// NFTA_CHAIN_USE
    pub const USE: u16 = 6;
    /// NFTA_CHAIN_TYPE
    pub const TYPE: u16 = 7;
    /// NFTA_CHAIN_COUNTERS
    pub const COUNTERS: u16 = 8;
    /// NFTA_CHAIN_USERDATA
    pub const USERDATA: u16 = 12;
}

/// `enum nft_rule_attributes`
pub mod rule {
    /// NFTA_RULE_TABLE
    pub const TABLE: u16 = 1;
    /// NFTA_RULE_CHAIN
    pub const CHAIN: u16 = 2;
    /// NFTA_RULE_HANDLE
    pub const HANDLE: u16 = 3;
    /// NFTA_RULE_EXPRESSIONS
    pub const EXPRESSIONS: u16 = 4;
    /// NFTA_RULE_POSITION
    pub const POSITION: u16 = 6;
    /// NFTA_RULE_USERDATA
    pub const USERDATA: u16 = 7;
}

/// `enum nft_set_flags`
pub mod set_flag {
    /// NFT_SET_ANONYMOUS
    pub const ANONYMOUS: u32 = 0x1;
    /// NFT_SET_CONSTANT
    pub const CONSTANT: u32 = 0x2;
    /// NFT_SET_INTERVAL
    pub const INTERVAL: u32 = 0x4;
    /// NFT_SET_MAP
    pub const MAP: u32 = 0x8;
}

/// `enum nft_set_attributes`
pub mod set {
    /// NFTA_SET_TABLE
    pub const TABLE: u16 = 1;
    /// NFTA_SET_NAME
    pub const NAME: u16 = 2;
    /// NFTA_SET_FLAGS
    pub const FLAGS: u16 = 3;
    /// NFTA_SET_KEY_TYPE
    pub const KEY_TYPE: u16 = 4;
    /// NFTA_SET_KEY_LEN
    pub const KEY_LEN: u16 = 5;
    /// NFTA_SET_DATA_TYPE
    pub const DATA_TYPE: u16 = 6;
    /// NFTA_SET_DATA_LEN
    pub const DATA_LEN: u16 = 7;
    /// NFTA_SET_DESC
    pub const DESC: u16 = 9;
    /// NFTA_SET_ID
    pub const ID: u16 = 10;
    /// NFTA_SET_USERDATA
    pub const USERDATA: u16 = 13;
    /// NFTA_SET_DESC_SIZE (`enum nft_set_desc_attributes`)
    pub const DESC_SIZE: u16 = 1;
    /// NFT_DATA_VERDICT (`enum nft_data_types`)
    pub const VERDICTS: u32 = 0xffff_ff00;
}

/// `enum nft_set_elem_attributes`, `enum nft_set_elem_list_attributes`
pub mod elem {
    /// NFTA_SET_ELEM_KEY
    pub const KEY: u16 = 1;
    /// NFTA_SET_ELEM_DATA
    pub const DATA: u16 = 2;
    /// NFTA_SET_ELEM_FLAGS
    pub const FLAGS: u16 = 3;
    /// NFT_SET_ELEM_INTERVAL_END (`enum nft_set_elem_flags`)
    pub const INTERVAL_END: u32 = 0x1;
    /// NFTA_SET_ELEM_LIST_TABLE
    pub const LIST_TABLE: u16 = 1;
    /// NFTA_SET_ELEM_LIST_SET
    pub const LIST_SET: u16 = 2;
    /// NFTA_SET_ELEM_LIST_ELEMENTS
    pub const LIST_ELEMENTS: u16 = 3;
    /// NFTA_SET_ELEM_LIST_SET_ID
    pub const LIST_SET_ID: u16 = 4;
}

/// `enum nft_list_attributes`, `enum nft_data_attributes`, `enum nft_verdict_attributes`,
/// `enum nft_expr_attributes`
pub mod data {
    /// NFTA_LIST_ELEM
    pub const LIST_ELEM: u16 = 1;
    /// NFTA_DATA_VALUE
    pub const VALUE: u16 = 1;
    /// NFTA_DATA_VERDICT
    pub const VERDICT: u16 = 2;
    /// NFTA_VERDICT_CODE
    pub const VERDICT_CODE: u16 = 1;
    /// NFTA_VERDICT_CHAIN
    pub const VERDICT_CHAIN: u16 = 2;
    /// NFTA_EXPR_NAME
    pub const EXPR_NAME: u16 = 1;
    /// NFTA_EXPR_DATA
    pub const EXPR_DATA: u16 = 2;
}

/// `enum nft_registers`
pub mod reg {
    /// NFT_REG_VERDICT
    pub const VERDICT: u32 = 0;
    /// NFT_REG_1
    pub const ONE: u32 = 1;
}

/// linux/netfilter.h and `enum nft_verdicts`
pub mod verdict {
    /// NF_DROP
    pub const DROP: i32 = 0;
    /// NF_ACCEPT
    pub const ACCEPT: i32 = 1;
    /// NFT_JUMP
    pub const JUMP: i32 = -3;
    /// NFT_GOTO
    pub const GOTO: i32 = -4;
    /// NFT_RETURN
    pub const RETURN: i32 = -5;
}

/// `enum nft_immediate_attributes`
pub mod immediate {
    /// NFTA_IMMEDIATE_DREG
    pub const DREG: u16 = 1;
    /// NFTA_IMMEDIATE_DATA
    pub const DATA: u16 = 2;
}

/// `enum nft_bitwise_attributes`
pub mod bitwise {
    /// NFTA_BITWISE_SREG
    pub const SREG: u16 = 1;
    /// NFTA_BITWISE_DREG
    pub const DREG: u16 = 2;
    /// NFTA_BITWISE_LEN
    pub const LEN: u16 = 3;
    /// NFTA_BITWISE_MASK
    pub const MASK: u16 = 4;
    /// NFTA_BITWISE_XOR
    pub const XOR: u16 = 5;
    /// NFTA_BITWISE_OP
    pub const OP: u16 = 6;
    /// NFTA_BITWISE_DATA
    pub const DATA: u16 = 7;
    /// NFT_BITWISE_LSHIFT (`enum nft_bitwise_ops`)
    pub const LSHIFT: u32 = 1;
    /// NFT_BITWISE_RSHIFT
    pub const RSHIFT: u32 = 2;
}

/// `enum nft_byteorder_attributes`
pub mod byteorder {
    /// NFTA_BYTEORDER_SREG
    pub const SREG: u16 = 1;
    /// NFTA_BYTEORDER_DREG
    pub const DREG: u16 = 2;
    /// NFTA_BYTEORDER_OP
    pub const OP: u16 = 3;
    /// NFTA_BYTEORDER_LEN
    pub const LEN: u16 = 4;
    /// NFTA_BYTEORDER_SIZE
    pub const SIZE: u16 = 5;
    /// NFT_BYTEORDER_HTON (`enum nft_byteorder_ops`)
    pub const HTON: u32 = 1;
}

/// `enum nft_cmp_attributes`, `enum nft_cmp_ops`
pub mod cmp {
    /// NFTA_CMP_SREG
    pub const SREG: u16 = 1;
    /// NFTA_CMP_OP
    pub const OP: u16 = 2;
    /// NFTA_CMP_DATA
    pub const DATA: u16 = 3;
    /// NFT_CMP_EQ
    pub const EQ: u32 = 0;
    /// NFT_CMP_NEQ
    pub const NEQ: u32 = 1;
    /// NFT_CMP_LT
    pub const LT: u32 = 2;
    /// NFT_CMP_LTE
    pub const LTE: u32 = 3;
    /// NFT_CMP_GT
    pub const GT: u32 = 4;
    /// NFT_CMP_GTE
    pub const GTE: u32 = 5;
}

/// `enum nft_range_attributes`, `enum nft_range_ops`
pub mod range {
    /// NFTA_RANGE_SREG
    pub const SREG: u16 = 1;
    /// NFTA_RANGE_OP
    pub const OP: u16 = 2;
    /// NFTA_RANGE_FROM_DATA
    pub const FROM_DATA: u16 = 3;
    /// NFTA_RANGE_TO_DATA
    pub const TO_DATA: u16 = 4;
    /// NFT_RANGE_NEQ
    pub const NEQ: u32 = 1;
}

/// `enum nft_lookup_attributes`, `enum nft_lookup_flags`
pub mod lookup {
    /// NFTA_LOOKUP_SET
    pub const SET: u16 = 1;
    /// NFTA_LOOKUP_SREG
    pub const SREG: u16 = 2;
    /// NFTA_LOOKUP_DREG
    pub const DREG: u16 = 3;
    /// NFTA_LOOKUP_SET_ID
    pub const SET_ID: u16 = 4;
    /// NFTA_LOOKUP_FLAGS
    pub const FLAGS: u16 = 5;
    /// NFT_LOOKUP_F_INV
    pub const F_INV: u32 = 1;
}

/// `enum nft_payload_attributes`, `enum nft_payload_bases`
pub mod payload {
    /// NFTA_PAYLOAD_DREG
    pub const DREG: u16 = 1;
    /// NFTA_PAYLOAD_BASE
    pub const BASE: u16 = 2;
    /// NFTA_PAYLOAD_OFFSET
    pub const OFFSET: u16 = 3;
    /// NFTA_PAYLOAD_LEN
    pub const LEN: u16 = 4;
    /// NFTA_PAYLOAD_SREG
    pub const SREG: u16 = 5;
    /// NFTA_PAYLOAD_CSUM_TYPE
    pub const CSUM_TYPE: u16 = 6;
    /// NFTA_PAYLOAD_CSUM_OFFSET
    pub const CSUM_OFFSET: u16 = 7;
    /// NFT_PAYLOAD_CSUM_INET (`enum nft_payload_csum_types`)
    pub const CSUM_INET: u32 = 1;
    /// NFT_PAYLOAD_LL_HEADER
    pub const LL_HEADER: u32 = 0;
    /// NFT_PAYLOAD_NETWORK_HEADER
    pub const NETWORK_HEADER: u32 = 1;
    /// NFT_PAYLOAD_TRANSPORT_HEADER
    pub const TRANSPORT_HEADER: u32 = 2;
}

/// `enum nft_exthdr_attributes`, `enum nft_exthdr_op`, `enum nft_exthdr_flags`
pub mod exthdr {
    /// NFTA_EXTHDR_DREG
    pub const DREG: u16 = 1;
    /// NFTA_EXTHDR_TYPE
    pub const TYPE: u16 = 2;
    /// NFTA_EXTHDR_OFFSET
    pub const OFFSET: u16 = 3;
    /// NFTA_EXTHDR_LEN
    pub const LEN: u16 = 4;
    /// NFTA_EXTHDR_FLAGS
    pub const FLAGS: u16 = 5;
    /// NFTA_EXTHDR_OP
    pub const OP: u16 = 6;
    /// NFT_EXTHDR_OP_IPV6
    pub const OP_IPV6: u32 = 0;
    /// NFT_EXTHDR_OP_TCPOPT
    pub const OP_TCPOPT: u32 = 1;
    /// NFT_EXTHDR_F_PRESENT
    pub const F_PRESENT: u32 = 1;
}

/// `enum nft_meta_attributes`, `enum nft_meta_keys`
pub mod meta {
    /// NFTA_META_DREG
    pub const DREG: u16 = 1;
    /// NFTA_META_KEY
    pub const KEY: u16 = 2;
    /// NFTA_META_SREG
    pub const SREG: u16 = 3;
    /// NFT_META_LEN
    pub const LEN: u32 = 0;
    /// NFT_META_PRIORITY
    pub const PRIORITY: u32 = 2;
    /// NFT_META_MARK
    pub const MARK: u32 = 3;
    /// NFT_META_IIFNAME
    pub const IIFNAME: u32 = 6;
    /// NFT_META_OIFNAME
    pub const OIFNAME: u32 = 7;
    /// NFT_META_IIFTYPE
    pub const IIFTYPE: u32 = 8;
    /// NFT_META_SKUID
    pub const SKUID: u32 = 10;
    /// NFT_META_SKGID
    pub const SKGID: u32 = 11;
    /// NFT_META_NFTRACE
    pub const NFTRACE: u32 = 12;
    /// NFT_META_SECMARK
    pub const SECMARK: u32 = 14;
    /// NFT_META_NFPROTO
    pub const NFPROTO: u32 = 15;
    /// NFT_META_L4PROTO
    pub const L4PROTO: u32 = 16;
    /// NFT_META_PKTTYPE
    pub const PKTTYPE: u32 = 19;
    /// NFT_META_CPU
    pub const CPU: u32 = 20;
    /// NFT_META_IIFGROUP
    pub const IIFGROUP: u32 = 21;
    /// NFT_META_OIFGROUP
    pub const OIFGROUP: u32 = 22;
    /// NFT_META_PRANDOM
    pub const PRANDOM: u32 = 24;
    /// NFT_META_SECPATH
    pub const SECPATH: u32 = 25;
    /// NFT_META_TIME_NS
    pub const TIME_NS: u32 = 30;
    /// NFT_META_TIME_DAY
    pub const TIME_DAY: u32 = 31;
    /// NFT_META_TIME_HOUR
    pub const TIME_HOUR: u32 = 32;
}

/// `enum nft_ct_attributes`, `enum nft_ct_keys`
pub mod ct {
    /// NFTA_CT_DREG
    pub const DREG: u16 = 1;
    /// NFTA_CT_KEY
    pub const KEY: u16 = 2;
    /// NFTA_CT_DIRECTION
    pub const DIRECTION: u16 = 3;
    /// NFTA_CT_SREG
    pub const SREG: u16 = 4;
    /// NFT_CT_STATE
    pub const STATE: u32 = 0;
    /// NFT_CT_DIRECTION
    pub const KEY_DIRECTION: u32 = 1;
    /// NFT_CT_STATUS
    pub const STATUS: u32 = 2;
    /// NFT_CT_MARK
    pub const MARK: u32 = 3;
    /// NFT_CT_SECMARK
    pub const SECMARK: u32 = 4;
    /// NFT_CT_EXPIRATION
    pub const EXPIRATION: u32 = 5;
    /// NFT_CT_HELPER
    pub const HELPER: u32 = 6;
    /// NFT_CT_PROTOCOL
    pub const PROTOCOL: u32 = 10;
    /// NFT_CT_PROTO_SRC
    pub const PROTO_SRC: u32 = 11;
    /// NFT_CT_PROTO_DST
    pub const PROTO_DST: u32 = 12;
    /// NFT_CT_LABELS
    pub const LABELS: u32 = 13;
    /// NFT_CT_PKTS
    pub const PKTS: u32 = 14;
    /// NFT_CT_BYTES
    pub const BYTES: u32 = 15;
    /// NFT_CT_AVGPKT
    pub const AVGPKT: u32 = 16;
    /// NFT_CT_ZONE
    pub const ZONE: u32 = 17;
    /// NFT_CT_SRC_IP
    pub const SRC_IP: u32 = 19;
    /// NFT_CT_DST_IP
    pub const DST_IP: u32 = 20;
    /// NFT_CT_SRC_IP6
    pub const SRC_IP6: u32 = 21;
    /// NFT_CT_DST_IP6
    pub const DST_IP6: u32 = 22;
}

/// `enum nft_fib_attributes`, `enum nft_fib_result`, `enum nft_fib_flags`
pub mod fib {
    /// NFTA_FIB_DREG
    pub const DREG: u16 = 1;
    /// NFTA_FIB_RESULT
    pub const RESULT: u16 = 2;
    /// NFTA_FIB_FLAGS
    pub const FLAGS: u16 = 3;
    /// NFT_FIB_RESULT_OIF
    pub const RESULT_OIF: u32 = 1;
    /// NFT_FIB_RESULT_ADDRTYPE
    pub const RESULT_ADDRTYPE: u32 = 3;
    /// NFTA_FIB_F_SADDR
    pub const F_SADDR: u32 = 1;
    /// NFTA_FIB_F_DADDR
    pub const F_DADDR: u32 = 2;
    /// NFTA_FIB_F_MARK
    pub const F_MARK: u32 = 4;
    /// NFTA_FIB_F_IIF
    pub const F_IIF: u32 = 8;
    /// NFTA_FIB_F_OIF
    pub const F_OIF: u32 = 16;
    /// NFTA_FIB_F_PRESENT
    pub const F_PRESENT: u32 = 32;
}

/// `enum nft_rt_attributes`, `enum nft_rt_keys`
pub mod rt {
    /// NFTA_RT_DREG
    pub const DREG: u16 = 1;
    /// NFTA_RT_KEY
    pub const KEY: u16 = 2;
    /// NFT_RT_CLASSID
    pub const CLASSID: u32 = 0;
    /// NFT_RT_XFRM
    pub const XFRM: u32 = 4;
}

/// `enum nft_xfrm_attributes`, `enum nft_xfrm_keys`; directions are XFRM_POLICY_* of linux/xfrm.h
pub mod xfrm {
    /// NFTA_XFRM_DREG
    pub const DREG: u16 = 1;
    /// NFTA_XFRM_KEY
    pub const KEY: u16 = 2;
    /// NFTA_XFRM_DIR
    pub const DIR: u16 = 3;
    /// NFTA_XFRM_SPNUM
    pub const SPNUM: u16 = 4;
    /// NFT_XFRM_KEY_REQID
    pub const REQID: u32 = 5;
    /// NFT_XFRM_KEY_SPI
    pub const SPI: u32 = 6;
    /// XFRM_POLICY_IN
    pub const DIR_IN: u8 = 0;
    /// XFRM_POLICY_OUT
    pub const DIR_OUT: u8 = 1;
}

/// `enum nft_socket_attributes`, `enum nft_socket_keys`
pub mod socket {
    /// NFTA_SOCKET_KEY
    pub const KEY: u16 = 1;
    /// NFTA_SOCKET_DREG
    pub const DREG: u16 = 2;
    /// NFT_SOCKET_TRANSPARENT
    pub const TRANSPARENT: u32 = 0;
}

/// `enum nft_ng_attributes`, `enum nft_ng_types`
pub mod numgen {
    /// NFTA_NG_DREG
    pub const DREG: u16 = 1;
    /// NFTA_NG_MODULUS
    pub const MODULUS: u16 = 2;
    /// NFTA_NG_TYPE
    pub const TYPE: u16 = 3;
    /// NFTA_NG_OFFSET
    pub const OFFSET: u16 = 4;
    /// NFT_NG_INCREMENTAL
    pub const INCREMENTAL: u32 = 0;
}

/// `enum nft_quota_attributes`, `enum nft_quota_flags`
pub mod quota {
    /// NFTA_QUOTA_BYTES
    pub const BYTES: u16 = 1;
    /// NFTA_QUOTA_FLAGS
    pub const FLAGS: u16 = 2;
    /// NFTA_QUOTA_CONSUMED
    pub const CONSUMED: u16 = 4;
    /// NFT_QUOTA_F_INV
    pub const F_INV: u32 = 1;
}

/// `enum nft_limit_attributes`, `enum nft_limit_type`, `enum nft_limit_flags`
pub mod limit {
    /// NFTA_LIMIT_RATE
    pub const RATE: u16 = 1;
    /// NFTA_LIMIT_UNIT
    pub const UNIT: u16 = 2;
    /// NFTA_LIMIT_BURST
    pub const BURST: u16 = 3;
    /// NFTA_LIMIT_TYPE
    pub const TYPE: u16 = 4;
    /// NFTA_LIMIT_FLAGS
    pub const FLAGS: u16 = 5;
    /// NFT_LIMIT_PKTS
    pub const PKTS: u32 = 0;
    /// NFT_LIMIT_F_INV
    pub const F_INV: u32 = 1;
}

/// `enum nft_counter_attributes`
pub mod counter {
    /// NFTA_COUNTER_BYTES
    pub const BYTES: u16 = 1;
    /// NFTA_COUNTER_PACKETS
    pub const PACKETS: u16 = 2;
}

/// `enum nft_log_attributes`
pub mod log {
    /// NFTA_LOG_GROUP
    pub const GROUP: u16 = 1;
    /// NFTA_LOG_PREFIX
    pub const PREFIX: u16 = 2;
    /// NFTA_LOG_SNAPLEN
    pub const SNAPLEN: u16 = 3;
    /// NFTA_LOG_QTHRESHOLD
    pub const QTHRESHOLD: u16 = 4;
    /// NFTA_LOG_LEVEL
    pub const LEVEL: u16 = 5;
    /// NFTA_LOG_FLAGS
    pub const FLAGS: u16 = 6;
    /// NFT_LOGLEVEL_AUDIT
    pub const LEVEL_AUDIT: u32 = 8;
}

/// `enum nft_gen_attributes`
pub mod generation {
    /// NFTA_GEN_ID
    pub const ID: u16 = 1;
}

/// `enum nft_nat_attributes`, `enum nft_nat_types`
pub mod nat {
    /// NFTA_NAT_TYPE
    pub const TYPE: u16 = 1;
    /// NFTA_NAT_FAMILY
    pub const FAMILY: u16 = 2;
    /// NFTA_NAT_REG_ADDR_MIN
    pub const REG_ADDR_MIN: u16 = 3;
    /// NFTA_NAT_REG_ADDR_MAX
    pub const REG_ADDR_MAX: u16 = 4;
    /// NFTA_NAT_REG_PROTO_MIN
    pub const REG_PROTO_MIN: u16 = 5;
    /// NFTA_NAT_REG_PROTO_MAX
    pub const REG_PROTO_MAX: u16 = 6;
    /// NFTA_NAT_FLAGS
    pub const FLAGS: u16 = 7;
    /// NFT_NAT_SNAT
    pub const SNAT: u32 = 0;
    /// NFT_NAT_DNAT
    pub const DNAT: u32 = 1;
}

/// `enum nft_masq_attributes`
pub mod masq {
    /// NFTA_MASQ_FLAGS
    pub const FLAGS: u16 = 1;
    /// NFTA_MASQ_REG_PROTO_MIN
    pub const REG_PROTO_MIN: u16 = 2;
    /// NFTA_MASQ_REG_PROTO_MAX
    pub const REG_PROTO_MAX: u16 = 3;
}

/// `enum nft_redir_attributes`
pub mod redir {
    /// NFTA_REDIR_REG_PROTO_MIN
    pub const REG_PROTO_MIN: u16 = 1;
    /// NFTA_REDIR_REG_PROTO_MAX
    pub const REG_PROTO_MAX: u16 = 2;
    /// NFTA_REDIR_FLAGS
    pub const FLAGS: u16 = 3;
}

/// `enum nft_reject_attributes`, `enum nft_reject_types`
pub mod reject {
    /// NFTA_REJECT_TYPE
    pub const TYPE: u16 = 1;
    /// NFTA_REJECT_ICMP_CODE
    pub const ICMP_CODE: u16 = 2;
    /// NFT_REJECT_ICMP_UNREACH
    pub const ICMP_UNREACH: u32 = 0;
    /// NFT_REJECT_TCP_RST
    pub const TCP_RST: u32 = 1;
}

/// `enum nft_queue_attributes`, NFT_QUEUE_FLAG_*
pub mod queue {
    /// NFTA_QUEUE_NUM
    pub const NUM: u16 = 1;
    /// NFTA_QUEUE_TOTAL
    pub const TOTAL: u16 = 2;
    /// NFTA_QUEUE_FLAGS
    pub const FLAGS: u16 = 3;
    /// NFT_QUEUE_FLAG_BYPASS
    pub const F_BYPASS: u16 = 1;
    /// NFT_QUEUE_FLAG_CPU_FANOUT
    pub const F_CPU_FANOUT: u16 = 2;
}

/// `enum nft_dup_attributes`
pub mod dup {
    /// NFTA_DUP_SREG_ADDR
    pub const SREG_ADDR: u16 = 1;
}

/// `enum nft_tproxy_attributes`
pub mod tproxy {
    /// NFTA_TPROXY_FAMILY
    pub const FAMILY: u16 = 1;
    /// NFTA_TPROXY_REG_ADDR
    pub const REG_ADDR: u16 = 2;
    /// NFTA_TPROXY_REG_PORT
    pub const REG_PORT: u16 = 3;
}

/// `enum nft_synproxy_attributes`, NF_SYNPROXY_OPT_* (linux/netfilter/nf_synproxy.h)
pub mod synproxy {
    /// NFTA_SYNPROXY_MSS
    pub const MSS: u16 = 1;
    /// NFTA_SYNPROXY_WSCALE
    pub const WSCALE: u16 = 2;
    /// NFTA_SYNPROXY_FLAGS
    pub const FLAGS: u16 = 3;
    /// NF_SYNPROXY_OPT_MSS
    pub const F_MSS: u32 = 1;
    /// NF_SYNPROXY_OPT_WSCALE
    pub const F_WSCALE: u32 = 2;
    /// NF_SYNPROXY_OPT_SACK_PERM
    pub const F_SACK_PERM: u32 = 4;
    /// NF_SYNPROXY_OPT_TIMESTAMP
    pub const F_TIMESTAMP: u32 = 8;
}
