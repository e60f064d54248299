# C structs of the core. 8-byte fields only; each has its NumPy twin in types.pyx.
from libc.stdint cimport int64_t


cdef struct Step:              # a decimal increment units/scale: 0.05 is 5/100
    double units               # whole number > 0
    double scale               # power of ten, <= 1e15


cdef struct Market:            # MARKET_DTYPE: the venue's rules for one symbol
    Step price_step            # quote
    Step qty_step              # base units (linear) or contracts (inverse)
    double min_qty             # at least one quantity step: an order of nothing is no order
    double min_cost            # least notional, quote (linear only)
    double maker_fee           # rates; negative = rebate
    double taker_fee
    double notional_cap        # largest notional at this leverage, quote; inf = none
    int64_t inverse            # 1: contracts of 1 quote unit, settled in base


cdef struct Tier:              # TIER_DTYPE: maintenance margin from `floor` upward
    double floor               # notional: quote (linear), base coin (inverse)
    double maintenance_rate
    double deduction           # settle currency


cdef struct Strategy:          # STRATEGY_DTYPE: what the planner reads of a config
    double balance_pct
    double leverage
    double entry_qty_pct
    double ddown_factor
    double grid_spacing
    double grid_coefficient
    double min_markup
    double max_markup
    double min_close_qty_multiplier
    double stop_loss_liq_diff
    double stop_loss_pos_price_diff
    double stop_loss_pos_reduction
    double ema_spread
    double max_order_distance
    int64_t n_close_orders
    int64_t n_entry_orders
    int64_t do_long
    int64_t do_short
    int64_t funding_fee_collect_mode


cdef struct View:              # VIEW_DTYPE: all a plan depends on besides rules and config
    double wallet              # settle currency
    double equity              # settle currency, at the last fill, funding or first plan
    double size                # signed: short < 0
    double entry_price         # average; 0 when flat
    double liq_price           # 0 = none
    double last_price
    double bid                 # best
    double ask
    double ema
    double funding_rate        # predicted; NaN = unknown
    double close_base          # size the close grid was built from; 0 = not known
    double stop_price          # of an outstanding limit stop
    double stop_qty            # 0 = no stop outstanding
    int64_t stop_kind
    int64_t stop_due           # Kind of a stop to start now, set by the print that asks for it; 0


cdef struct Order:             # ORDER_DTYPE: an order as the planner wants it
    int64_t side               # +1 buy, -1 sell
    double price               # ideal, on the market's price grid
    double qty                 # > 0, on the market's quantity grid
    int64_t reduce_only
    int64_t kind               # Kind


cdef struct Fill:              # FILL_DTYPE: one record of a run, money in settle currency
    int64_t tick               # index of the last print so far
    int64_t ts_ms
    int64_t position_side      # +1 long, -1 short; before the fill, of the new position when flat
    int64_t kind               # Kind
    double price
    double qty                 # signed: > 0 bought; 0 for funding
    double pos_size            # signed, after it
    double pos_price           # after it; 0 when flat
    double liq_price           # after it; 0 = none
    double pnl                 # of the part that was closed; the amount of a funding
    double fee                 # negative when paid
    double balance             # wallet after it
    double closest_liq         # least |p - liq| / p since the last record; 1 when flat after it


cdef struct Equity:            # EQUITY_DTYPE: a point of the equity curve
    int64_t ts_ms
    double wallet              # settle currency
    double equity              # wallet + open pnl at the last price


cdef struct Funding:           # FUNDING_DTYPE: one settlement
    int64_t ts_ms
    double rate                # > 0: longs pay


cpdef enum Kind:
    ENTRY = 1
    REENTRY = 2
    CLOSE = 3
    STOP_LOSS_LIQ_DIFF = 4
    STOP_LOSS_POS_PRICE_DIFF = 5
    FUNDING = 6
    LIQUIDATION = 7
