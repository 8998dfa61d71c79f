// SPDX-License-Identifier: MIT
/* A module as small as one can be that still shows that it runs: /proc/small says what it is told. */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static char *says = "nothing";
module_param(says, charp, 0444);
MODULE_PARM_DESC(says, "what /proc/small holds");

static int small_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "%s\n", says);
	return 0;
}

static int __init small_start(void)
{
	return proc_create_single("small", 0444, NULL, small_show) ? 0 : -ENOMEM;
}

static void __exit small_end(void)
{
	remove_proc_entry("small", NULL);
}

module_init(small_start);
module_exit(small_end);
MODULE_DESCRIPTION("umlaan's example of a module outside the kernel's tree");
MODULE_LICENSE("Dual MIT/GPL");
