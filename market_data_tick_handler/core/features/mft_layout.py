"""Where the group `mft` keeps what: its columns, its series and its memory."""

from __future__ import annotations

from typing import Final

import numpy as np

COLUMNS: Final = (
    *("sma_50", "ema_50", "sma_200", "ema_200", "rsi_14", "true_range", "atr_14", "natr_14"),
    *("plus_di_14", "minus_di_14", "adx_14"),
    *("donchian_high_20", "donchian_low_20", "donchian_mid_20", "donchian_position_20"),
    *("stoch_k_14", "stoch_d_3", "williams_r_14", "cci_20", "mfi_14", "obv_session", "cmf_20"),
    *("aroon_up_25", "aroon_down_25", "efficiency_ratio_10", "linreg_slope_20", "linreg_r2_20"),
    *("price_zscore_20", "volume_zscore_20"),
    *("parkinson_vol_20", "garman_klass_vol_20", "rogers_satchell_vol_20", "yang_zhang_vol_20"),
    *("return_skew_60", "return_kurt_60", "return_autocorr_1_60", "return_autocorr_5_60", "variance_ratio_5_60"),
    *("hurst_128", "max_drawdown_60", "realized_vol_60", "jump_ratio_60", "funding_zscore_60", "basis_zscore_60"),
)

# Tables of series by the reach of their longest window, the current candle not counted: sma_200, 60 candles, aroon_25.
# The first rows of each table are averaged and need the lengths of their runs of equal values.
LONG_HISTORY: Final = 199
CLOSE, LOG_CLOSE = range(2)
LONG_SERIES: Final = 2
LONG_GUARDED: Final = 1

MEDIUM_HISTORY: Final = 59
RETURN, FUNDING, BASIS, VARIANCE, JUMP = range(5)
MEDIUM_SERIES: Final = 5
MEDIUM_GUARDED: Final = 3

SHORT_HISTORY: Final = 25
VOLUME, TYPICAL, RANGE_KLASS, RANGE_SATCHELL, OVERNIGHT, INTRADAY, STOCHASTIC = range(7)
HIGH, LOW, INFLOW, OUTFLOW, LOCATED, RANGE_SQUARE, DISTANCE = range(7, 14)
SHORT_SERIES: Final = 14
SHORT_GUARDED: Final = 7

# Slots of the recursive filters' state.
EMA_50, EMA_200, GAIN, LOSS, ATR, TRUE_SUM, PLUS_SUM, MINUS_SUM, ADX = range(9)

MEMORY: Final = np.dtype(
    [
        ("seen", "i8"),
        ("day", "i8"),
        ("on_balance", "f8"),
        ("filters", "f8", (9,)),
        ("long_runs", "i8", (LONG_GUARDED,)),
        ("medium_runs", "i8", (MEDIUM_GUARDED,)),
        ("short_runs", "i8", (SHORT_GUARDED,)),
        ("long", "f8", (LONG_SERIES, LONG_HISTORY)),
        ("medium", "f8", (MEDIUM_SERIES, MEDIUM_HISTORY)),
        ("short", "f8", (SHORT_SERIES, SHORT_HISTORY)),
    ]
)
OUT: Final = np.dtype([(name, "f8") for name in COLUMNS])
