#include "base/list.h"
#include <criterion/criterion.h>

struct item {
    int value;
    struct list_node node;
};

/* The values of a list as decimal digits: 1, 2, 3 -> 123. */
static int digits(struct list_node *head)
{
    int sum = 0;
    list_for_each(n, head) sum = sum * 10 + list_entry(n, struct item, node)->value;
    return sum;
}

static struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
static struct list_node head;

static void three_items(void)
{
    list_init(&head);
    for (int i = 0; i < 3; i++)
        list_push_back(&head, &items[i].node);
}

TestSuite(list, .init = three_items);

Test(list, push_back_keeps_order) { cr_assert_eq(digits(&head), 123); }

Test(list, push_front_goes_first)
{
    list_remove(&items[2].node);
    list_push_front(&head, &items[2].node);
    cr_assert_eq(digits(&head), 312);
}

Test(list, insert_after_goes_between)
{
    list_remove(&items[2].node);
    list_insert_after(&items[0].node, &items[2].node);
    cr_assert_eq(digits(&head), 132);
}

Test(list, removed_node_is_in_no_list_and_may_be_removed_again)
{
    list_remove(&items[1].node);
    cr_assert_not(list_is_linked(&items[1].node));
    list_remove(&items[1].node);
    cr_assert_eq(digits(&head), 13);
}

Test(list, loop_body_may_remove_its_node)
{
    list_for_each(n, &head) list_remove(n);
    cr_assert(list_is_empty(&head));
}

Test(list, pop_front_empties_in_order_then_gives_null)
{
    cr_assert_eq(list_pop_front(&head), &items[0].node);
    cr_assert_eq(list_pop_front(&head), &items[1].node);
    cr_assert_eq(list_pop_front(&head), &items[2].node);
    cr_assert_null(list_pop_front(&head));
}
