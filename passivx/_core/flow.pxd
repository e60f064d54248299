# The bot's side of the rules: when to plan, what to change, what is on its way.
from libc.stdint cimport int64_t, uint8_t
from passivx._core.grid cimport MAX_ORDERS, Levels
from passivx._core.types cimport Market, Order, Strategy, View

cdef enum:
    MAX_LIVE = 1024            # live orders of both sides; a plan has at most MAX_ORDERS
    MAX_OUTBOX = 128           # two groups of at most 50, and a market stop

cdef struct FlowRules:         # FLOW_RULES_DTYPE: what of a config the flow goes by
    double requote_tolerance
    int64_t requote_ms
    int64_t orders_per_batch
    int64_t market_stop_loss

cpdef enum LiveState:
    SENT = 1                   # on its way to the book
    IN_BOOK = 2
    CANCELLING = 3             # its cancel is on its way

cdef struct Live:              # an order of ours that the venue has or is about to have
    int64_t id                 # rises with every order sent: its age
    int64_t state
    int64_t at_market
    double price               # as sent
    double qty
    Order ideal                # as planned; quantities are what is left

cpdef enum What:
    PLACE = 1
    PLACE_AT_MARKET = 2
    CANCEL = 3

cdef struct Message:
    int64_t what
    int64_t id
    int64_t side
    double price
    double qty
    int64_t reduce_only

cdef struct Queue:             # what one side still has to send for the last plan
    int64_t[MAX_LIVE] cancels  # ids
    int n_cancels
    int at_cancel
    Order[MAX_ORDERS] creates
    uint8_t[MAX_ORDERS] nearest    # 1: the nearest re-entry of the plan
    int n_creates
    int at_create
    int on_its_way             # messages of the last group that have not arrived

cdef struct Flow:
    View view                  # the driver keeps the market in it up to date
    Strategy strategy
    Market market
    FlowRules rules
    Levels levels              # of the stops
    bint due                   # a plan is due
    bint armed                 # a new stop may become due
    int64_t stop_id            # of a market stop on its way; 0 = none
    Live[MAX_LIVE] live        # by age
    int n_live
    int64_t last_id
    Queue[2] queues            # buys, sells
    Order* refused             # slots that wait for the next requote
    int n_refused
    Py_ssize_t refused_room
    bint settled               # the next requote can change nothing but what is too far away now
    int64_t beyond             # a stop level was reached by the last price of the last plan
    Order[MAX_ORDERS] ideal    # scratch of flow_plan
    uint8_t[MAX_ORDERS] taken
    Message[MAX_OUTBOX] outbox     # for the driver to send, in this order, and to clear
    int n_outbox
    bint out_of_memory

cdef void flow_start(
    Flow* flow, const Strategy* strategy, const Market* market, const FlowRules* rules,
    double wallet) noexcept nogil
cdef void flow_free(Flow* flow) noexcept nogil
cdef void flow_account(
    Flow* flow, double wallet, double equity, double size, double entry_price, double liq_price,
) noexcept nogil
cdef void flow_print(Flow* flow, double price) noexcept nogil
cdef int64_t flow_filled(Flow* flow, int64_t id, double qty) noexcept nogil
cdef void flow_placed(Flow* flow, int64_t id) noexcept nogil
cdef void flow_refused(Flow* flow, int64_t id, bint would_take) noexcept nogil
cdef void flow_gone(Flow* flow, int64_t id) noexcept nogil
cdef void flow_kept(Flow* flow, int64_t id) noexcept nogil
cdef int64_t flow_take_over(
    Flow* flow, const Order* ideal, double price, double qty, int64_t state) noexcept nogil
cdef void flow_arrived(Flow* flow, const Message* message) noexcept nogil
cdef void flow_plan(Flow* flow) noexcept nogil
cdef void flow_requote(Flow* flow) noexcept nogil
cdef void flow_release(Flow* flow) noexcept nogil
cdef double stop_trigger(const Flow* flow) noexcept nogil
