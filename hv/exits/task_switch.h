/* Switching tasks as the processor does outside IA-32e mode, and never does for a guest: every attempt exits
 * (SDM volume 3, 8.3 "Task switching", and 26.4.2 "Treatment of task switches"). */
#pragma once

#include "hv/vcpu.h"

enum task_switch_source { TASK_SWITCH_CALL, TASK_SWITCH_IRET, TASK_SWITCH_JMP, TASK_SWITCH_GATE };

/* Carries out the switch that exited, or raises its fault: in the old task before it, in the new one after.
 */
struct exit_result task_switch(struct vcpu *vcpu, const struct exit *exit);
