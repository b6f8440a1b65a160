from django.contrib import admin

from .models import Account, Customer, Order

admin.site.register(Account)


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "phone", "birth", "balance", "visits", "joined"]
    list_filter = ["active", "account"]
    list_select_related = ["account"]
    search_fields = ["name", "=email"]
    ordering = ["id"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["number", "customer", "comment"]
    ordering = ["id"]
