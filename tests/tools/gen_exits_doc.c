/* gen_exits_doc > docs/exits.md */
#include "tests/tools/exits_doc.h"

int main(void)
{
    exits_doc_write(stdout);
    return ferror(stdout) != 0;
}
