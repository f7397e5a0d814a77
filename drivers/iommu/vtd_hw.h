/* What VT-d needs of the real machine. */
#pragma once

#include "drivers/iommu/iommu.h"

/* Fills map and write_back of an environment; the rest is the caller's. */
void vtd_hw_env(struct iommu_env *env);
