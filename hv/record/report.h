/* Why a VM stopped, in words. */
#pragma once

#include "hv/vcpu.h"

/* Prints registers, the last exits and the code at RIP of a loaded vCPU to the log, with its VM's name. */
void report_vcpu(struct vcpu *vcpu);
